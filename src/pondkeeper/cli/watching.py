"""A run that is watched: a progress bar on a terminal, else a line now and then; its log above that. All on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from pondkeeper.cli.narration import say
from pondkeeper.cli.output import one_line
from pondkeeper.cli.quantities import show_seconds
from pondkeeper.cli.runs_shown import holder_of, phase_of, progress_of, took_s
from pondkeeper.jobs.outcomes import failure_of
from pondkeeper.jobs.status import FINAL, Phase

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Status = dict[str, Any]
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 60.0


class Screen(Protocol):
    """Where a run is shown."""

    def show(self, run: Status) -> None:
        """The run as it stands now."""

    def line(self, text: str) -> None:
        """A line of its log."""

    def tick(self) -> None:
        """Nothing happened; time went by."""

    def close(self) -> None:
        """Nothing more comes."""


def screen_for() -> Screen:
    """A bar where somebody looks, else lines."""
    return Bar() if sys.stderr.isatty() else Lines()


class Lines:
    """A line at each change of phase, and at 2, 4, 8, … seconds: a log must not fill up with them."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._pause_s = FIRST_PAUSE_S
        self._next_at = 0.0
        self._run: Status = {}

    def show(self, run: Status) -> None:
        self._run = run
        if run["phase"] != self._phase:
            self._phase, self._pause_s = run["phase"], FIRST_PAUSE_S
            self._say()
        else:
            self.tick()

    def line(self, text: str) -> None:
        say(one_line(text.expandtabs()))

    def tick(self) -> None:
        if self._run and self._run["phase"] not in FINAL and time.monotonic() >= self._next_at:
            self._say()

    def _say(self) -> None:
        say(f"{self._run['job']}: {phase_of(self._run)}{_said(self._run, ': ')}")
        self._next_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Nothing is left to do."""


class Bar:
    """One moving line at the bottom of a terminal, which is wiped at the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console = Console(stderr=True, highlight=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._progress: Progress = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
        self._task: TaskID = self._progress.add_task("", said="", total=None)
        self._of: tuple[str, int | None] = ("", None)
        self._run: Status = {}
        self._progress.start()

    def show(self, run: Status) -> None:
        self._run = run
        shown: dict[str, Any] = {"description": f"{run['job']}: {phase_of(run)}", "completed": run["done"], "said": _said(run)}
        if self._of != (run["phase"], run["total"]):  # Why a new one: a bar that was full does not begin anew.
            self._of = (run["phase"], run["total"])
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(**shown, total=run["total"] or None)
        else:
            self._progress.update(self._task, **shown)
        self._progress.refresh()

    def line(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(one_line(text.expandtabs())), soft_wrap=True)

    def tick(self) -> None:
        if self._run:
            self.show(self._run)

    def close(self) -> None:
        self._progress.stop()


def _said(run: Status, before: str = "") -> str:
    """How far it is, for whom it waits, and for how long it has gone on."""
    said = ", ".join(filter(None, (run["message"], progress_of(run), holder_of(run))))
    if run["phase"] not in FINAL and (elapsed_s := took_s(run)):
        said += f" ({show_seconds(elapsed_s)})" if said else show_seconds(elapsed_s)
    return before + one_line(said) if said else ""


class Watched:
    """`with Watched() as watched: last = watched.take(news)`: shows them, and wipes the bar whatever happens."""

    def __init__(self) -> None:
        self._screen = screen_for()
        self.last: Status = {}
        self._rest = ""

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rest:
            self._screen.line(self._rest)
        self._screen.close()

    def take(self, news: Iterable[dict[str, Any]]) -> Status:
        """Show `{"run": …}` and `{"log": …}` as they come; the last state of the run."""
        is_quiet = True
        for each in news:
            is_quiet = False
            if "run" in each:
                self.last = each["run"]
                self._screen.show(self.last)
            elif "log" in each:
                *lines, self._rest = (self._rest + each["log"]).split("\n")
                for line in lines:
                    self._screen.line(line)
            else:
                self._screen.tick()
        if is_quiet:
            self._screen.tick()
        return self.last

    def warn(self, text: str) -> None:
        """A sentence above the bar."""
        self._screen.line(f"warning: {text}")


def ended(run: Status) -> None:
    """Say how a run has ended. Raises what it failed by."""
    if (error := failure_of(run)) is not None:
        raise error
    if run.get("phase") == Phase.DONE:
        rows = f", {run['rows']:,} rows" if run["rows"] else ""
        version = f", in version {run['versions'][-1]}" if run["versions"] else ""
        held = f"; held the file for {show_seconds(run['held_s'])}" if run["held_s"] else ""
        say(f"{run['job']} is done after {show_seconds(took_s(run))}{rows}{version}{held}")

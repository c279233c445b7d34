"""`pondkeeper run`: a program gets a database to itself, in its turn."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import Progress, say, show_error, warn
from pondkeeper.cli.quantities import DURATION, show_seconds
from pondkeeper.cli.supervision import Bounds, Ended, end_all, run_program
from pondkeeper.cli.target import Target, home_option
from pondkeeper.errors import DatabaseBusy, PondkeeperError
from pondkeeper.local.known import database_at, find_database, home_of, is_file_name
from pondkeeper.settings import Settings
from pondkeeper.workers.descendants import descendants

if TYPE_CHECKING:
    from pondkeeper.files.locks import LockHolder
    from pondkeeper.files.paths import DatabasePaths
    from pondkeeper.writer.lease import Lease

# Why: other words may hold secrets (postgres://user:secret@host), and everybody who waits is shown them.
HARMLESS: Final = re.compile(r"[A-Za-z0-9_./]{1,60}\Z")
# What shells answer when a program is not there, and when it is there and cannot be executed; what timeout(1) answers
# when a program was ended because its time was over; and sysexits' "temporary failure" where the turn did not come.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
HELD_TOO_LONG: Final = 124
NO_TURN: Final = 75


@new_command(
    "run",
    "Run a program that may write.",
    example("a dbt project, when the database is free", "pondkeeper run -- dbt build"),
    example("say why, for those who wait", 'pondkeeper run --reason "nightly load" -- python load.py'),
    example("now or not at all", "pondkeeper run --no-wait -- ./repair.sh"),
    example("end it when it has had the database for half an hour", "pondkeeper run --max-hold 30m -- python load.py"),
    example("a database named by its file", "pondkeeper run -d ./warehouse.duckdb -- duckdb warehouse.duckdb"),
    allow_interspersed_args=False,  # Why: options after COMMAND are COMMAND's own, also without `--`.
)
@click.option("--wait", "wait_s", type=DURATION, default="5m", show_default=True, help="How long to wait for the turn.")
@click.option("--no-wait", is_flag=True, help="Give up at once when somebody has the database.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those who wait and for `status`.")
@click.option(
    "--max-hold", "max_hold_s", type=DURATION, help="How long COMMAND may run; then it is ended.  [lease.max_hold_s]"
)
@click.option(
    "--kill-after",
    "kill_after_s",
    type=DURATION,
    default="10s",
    show_default=True,
    help="How long what is ended has between SIGTERM and SIGKILL.",
)
@click.option(
    "-d", "--database", metavar="NAME", help="The database, by name or by its file; not needed where there is one."
)
@click.option("--no-snapshot", is_flag=True, help="Do not ask the keeper to publish what was written.")
@home_option
@click.argument("program", metavar="COMMAND [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    wait_s: float,
    no_wait: bool,
    reason: str,
    max_hold_s: float | None,
    kill_after_s: float,
    database: str | None,
    no_snapshot: bool,
    target: Target,
    program: tuple[str, ...],
) -> int:
    """Run COMMAND while it alone may write the database.

    It waits for its turn, first come, first served, with a keeper running or without one. COMMAND finds the
    database file in $PONDKEEPER_DATABASE and opens it itself; readers go on from the last snapshot. Signals are passed
    on, the exit code is COMMAND's own, and what it wrote is published when it has ended. Exit code 75: its turn did not
    come; 124: it was ended because it had the database for too long.
    """
    paths = _database(target, database)
    if max_hold_s is None:
        max_hold_s = Settings.load(home_of(paths).settings_file).lease.max_hold_s
    turn = _Turn(paths, program, reason, max_hold_s or None, kill_after_s)
    try:
        turn.take(0.0 if no_wait else wait_s)
    except DatabaseBusy as busy:
        show_error(busy)
        return NO_TURN
    try:
        code = turn.run()
    except OSError as error:
        warn(f"{program[0]} cannot be started: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        turn.give_back()
    if not no_snapshot:
        _publish(paths)
    return code


def _database(target: Target, name: str | None) -> DatabasePaths:
    if name is not None and is_file_name(name):
        return database_at(Path(name))
    return find_database(target.local_home(), name)


def _shown(program: Sequence[str]) -> str:
    """How the program is called in messages to others: without its later arguments, which may hold secrets."""
    words = [Path(program[0]).name, *(word for word in program[1:2] if HARMLESS.match(word))]
    return " ".join(words)


class _Turn:
    """The turn of one program: taken, used, and given back when nothing of it has the database open any more."""

    def __init__(
        self, paths: DatabasePaths, program: Sequence[str], reason: str, max_hold_s: float | None, kill_after_s: float
    ) -> None:
        from pondkeeper.writer.lease import Lease

        self._paths = paths
        self._program = program
        self._lease: Lease = Lease(paths, who=_shown(program), why=reason, max_hold_s=max_hold_s)
        self._bounds = Bounds(max_hold_s, kill_after_s, self._say_end)

    def take(self, wait_s: float) -> None:
        """Wait for the turn, and say for whom. Raises DatabaseBusy."""
        from pondkeeper.local.turn import take_turn

        with Progress("waiting for the turn") as progress:

            def tell(text: str) -> None:
                progress.what = text
                progress.say(text)

            take_turn(self._lease, self._paths, wait_s, tell)

    def run(self) -> int:
        """Run the program to its end; its exit code, or that of one that was ended."""
        began = time.monotonic()
        environment = {"PONDKEEPER_DATABASE": str(self._paths.file)}
        ended: Ended = run_program(self._program, environment, keep_open=self._lease.fileno(), bounds=self._bounds)
        self._end_left_behind()
        say(f"{self._program[0]} ended with {ended.code} after {show_seconds(time.monotonic() - began)}")
        return HELD_TOO_LONG if ended.was_late else ended.code

    def give_back(self) -> None:
        """Give the lease to whoever waits for it."""
        self._lease.release(from_all=True)

    def _say_end(self, number: signal.Signals) -> None:
        limit_s, kill_after_s = self._bounds.longest_s, self._bounds.kill_after_s
        if number is signal.SIGTERM:
            had = f"{self._program[0]} has had the database for {show_seconds(limit_s)}, the most that it may"
            warn(f"{had}: it is ended (SIGTERM, and SIGKILL after {show_seconds(kill_after_s)})")
        else:
            warn(f"{self._program[0]} did not end within {show_seconds(kill_after_s)}: it is killed")

    def _end_left_behind(self) -> None:
        """End what the program has left behind with the database open: whoever is next must not meet it."""
        if left := self._left_behind():
            names = ", ".join(f"{holder.program} (pid {holder.pid})" for holder in left)
            warn(f"{self._program[0]} has left behind {names} with the database open: ended")
            end_all(lambda: [holder.pid for holder in self._left_behind()], self._bounds.kill_after_s)

    def _left_behind(self) -> list[LockHolder]:
        from pondkeeper.local.turn import strangers_of

        born = set(descendants())
        return [holder for holder in strangers_of(self._paths) if holder.pid in born]


def _publish(paths: DatabasePaths) -> None:
    """Ask the keeper, where one runs, to publish what was written; that it failed is no failure of the program."""
    from pondkeeper.local.publishing import publish

    try:
        with Progress("Publishing what was written"):
            snapshot = publish(paths)
    except PondkeeperError as error:
        warn(f"no snapshot was published: {error.message} [{error.code}]")
        return
    if snapshot is not None:
        say(f"published as version {snapshot['version']}")

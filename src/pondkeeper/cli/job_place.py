"""Where jobs are asked about: a keeper that runs, here or elsewhere, or else the files of its home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pondkeeper.cli.narration import warn
from pondkeeper.cli.target import Target
from pondkeeper.errors import KeeperNotAnswering, KeeperNotRunning, KeeperStopping, RunNotFound
from pondkeeper.files.paths import Home
from pondkeeper.local.known import home_at, keeper_of, search_home

if TYPE_CHECKING:
    from pondkeeper.client import Client
    from pondkeeper.client.jobs import Jobs
    from pondkeeper.jobs.alone import RunAlone
    from pondkeeper.local.runs import RunView

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
ANSWER_TIMEOUT_S: Final = 10.0
AWAY: Final = (KeeperNotRunning, KeeperNotAnswering, KeeperStopping)
COMPLETED_RUNS: Final = 50

Status = dict[str, Any]


class JobPlace:
    """The jobs that a command means. What can be seen in files is read there, so that it answers always."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._home = None if target.is_remote else target.local_home()

    @property
    def home(self) -> Home | None:
        """The home, where it is on this machine."""
        return self._home

    def listed(self) -> dict[str, Any]:
        """The jobs, and what is wrong with the settings file."""
        return self._asked(lambda jobs: jobs.list(), lambda home: _local().listed(home))

    def job(self, name: str) -> dict[str, Any]:
        """One job with its settings, as far as one may see them."""
        return self._asked(lambda jobs: jobs.get(name), lambda home: _local().job(home, name))

    def history(self, job: str | None, *, limit: int, before: str | None) -> list[Status]:
        """Runs, the youngest first."""
        return self._asked(
            lambda jobs: jobs.runs(job, limit=limit, before=before),
            lambda home: _local().history(home, job, limit=limit, before=before),
        )

    def enable(self, name: str, *, enabled: bool) -> None:
        """Switch a job on or off."""
        self._done(
            lambda jobs: jobs.enable(name) if enabled else jobs.disable(name),
            lambda home: _local().enable(home, name, enabled=enabled),
        )

    def accept_drift(self, name: str) -> list[dict[str, Any]]:
        """Let changes of the source through: which."""
        return self._done(lambda jobs: jobs.accept_drift(name), lambda home: _local().accept_drift(home, name))

    def cancel(self, run_id: str) -> Status:
        """Tell a run to end."""
        return self._done(lambda jobs: jobs.cancel(run_id), lambda home: _local().cancel(home, run_id))

    def run(self, name: str) -> Status | None:
        """Have the keeper run a job; None where there is no keeper that would."""
        if self._home is not None and not keeper_of(self._home).running:
            return None
        with self._client() as client:
            return client.jobs.run(name)

    def begin(self, name: str, *, log: bool) -> tuple[RunAlone, RunView]:
        """A run of a job that this process carries out because no keeper runs, and a view of it."""
        from pondkeeper.local.runs import RunView

        assert self._home is not None
        run: RunAlone = _local().begin(self._home, name)
        return run, RunView(self._home, run.run_id, log=log)

    def run_named(self, name: str) -> str:
        """The run of that id, or the youngest of a job."""
        from pondkeeper.jobs.folders import is_run_id

        if is_run_id(name):
            return name
        if self._home is not None:
            from pondkeeper.local.runs import run_named

            return run_named(self._home, name)
        with self._client() as client:
            found = client.jobs.runs(name, limit=1)
        if not found:
            raise RunNotFound(f"There is no run of a job {name[:80]!r}.")
        return str(found[0]["run_id"])

    def status(self, run_id: str) -> Status:
        """A run as it stands; here always from its files, and of one that has none any more from history."""
        if self._home is not None:
            from pondkeeper.local.runs import seen

            if (status := seen(self._home, run_id)) is not None:
                return status
        return self._asked(lambda jobs: jobs.status(run_id), lambda home: _local().ended_run(home, run_id))

    def follow(self, run_id: str, *, log: bool, warn_: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """What happens in a run until its end: of one on this machine from its files, whatever becomes of the keeper."""
        if self._home is not None:
            from pondkeeper.local.runs import follow

            yield from follow(self._home, run_id, log=log, warn=warn_)
            return
        with self._client() as client:
            yield from client.jobs.follow(run_id, log=log)

    def log(self, run_id: str, *, follow: bool, lines: int | None) -> Iterator[bytes]:
        """The log of a run in pieces; here from its file, and of a run that has none any more what history has of it."""
        if self._home is not None:
            from pondkeeper.local.runs import log, seen

            if seen(self._home, run_id) is not None:
                yield from log(self._home, run_id, follow_=follow, lines=lines)
                return
            if not keeper_of(self._home).running:
                yield str(_local().ended_run(self._home, run_id)["log_end"]).encode()
                return
        with self._client() as client:
            yield from client.jobs.log(run_id, follow=follow, tail=lines)

    def _client(self, timeout_s: float | None = None) -> Client:
        return self._target.client(timeout_s=timeout_s)

    def _asked(self, of_keeper: Callable[[Jobs], T], of_files: Callable[[Home], T]) -> T:
        """The keeper's answer; from files where none runs here, and where the one that does gives none."""
        if self._home is None:
            with self._client() as client:
                return of_keeper(client.jobs)
        if keeper_of(self._home).running:
            try:
                with self._client(ANSWER_TIMEOUT_S) as client:
                    return of_keeper(client.jobs)
            except AWAY as error:
                warn(f"{error.message} What follows is seen from outside.")
        return of_files(self._home)

    def _done(self, of_keeper: Callable[[Jobs], T], of_files: Callable[[Home], T]) -> T:
        """As `_asked`, of what changes something: a keeper that runs is the only one that may."""
        if self._home is None or keeper_of(self._home).running:
            with self._client() as client:
                return of_keeper(client.jobs)
        return of_files(self._home)


def _local() -> Any:
    import pondkeeper.local.jobs as found

    return found


def job_argument(function: F) -> F:
    """The argument JOB, completed by the names in the settings file."""
    return click.argument("job", shell_complete=_complete_job)(function)


def maybe_job_argument(function: F) -> F:
    """The same, where it need not be given."""
    return click.argument("job", required=False, shell_complete=_complete_job)(function)


def run_argument(function: F) -> F:
    """The argument RUN|JOB: the id of a run, or a job for its youngest one; completed by both."""
    return click.argument("run", metavar="RUN|JOB", shell_complete=_complete_run)(function)


def maybe_run_argument(function: F) -> F:
    """The same, where it need not be given."""
    return click.argument("run", metavar="[RUN|JOB]", required=False, shell_complete=_complete_run)(function)


def _complete_job(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The names of jobs for the Tab key, from the settings file."""
    found = home_of(context)
    return [name for name in _names(found) if name.startswith(incomplete)] if found else []


def _complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of jobs and the youngest runs."""
    from pondkeeper.jobs.folders import runs_of

    found = home_of(context)
    runs = runs_of(found.root)[:COMPLETED_RUNS] if found else []
    return _complete_job(context, parameter, incomplete) + [run for run in runs if run.startswith(incomplete)]


def _names(home: Home) -> list[str]:
    """The jobs of the settings file, also of one that is not valid yet; none when it cannot be read."""
    import tomllib

    try:
        jobs = tomllib.loads(home.settings_file.read_text()).get("jobs", {})
    except (OSError, ValueError):
        return []
    return list(jobs) if isinstance(jobs, dict) else []


def home_of(context: click.Context) -> Home | None:
    """The home that a half-typed command means. Trap: while completing, no command and no group has run."""
    from pathlib import Path

    place: click.Context | None = context
    while place is not None and not place.params.get("home"):
        place = place.parent
    return home_at(Path(place.params["home"])) if place is not None else search_home(Path.cwd())

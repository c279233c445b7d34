"""One dbt as a child of the run: started early, given the lease when it has read its project, watched to its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pondkeeper.errors import ExtraMissing, RunFailed, RunTimedOut
from pondkeeper.jobs.kinds_settings.dbt import DbtSettings
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.environment import environment_for
from pondkeeper.kinds.warehouse import Turn

PROGRAM: Final = Path(__file__).with_name("program.py")
LOOK_EVERY_S: Final = 0.2
END_WITHIN_S: Final = 5.0
LINE_BYTES: Final = 1024 * 1024


@dataclass
class Built:
    """How a build ended: whether all succeeded, why dbt itself gave up, and which nodes each run had asked for."""

    success: bool = False
    why: str | None = None
    chosen: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None


def plan_of(settings: DbtSettings, target: Path, logs: Path, socket_number: int) -> dict[str, Any]:
    """What `program.py` is told."""
    profiles = settings.profiles or settings.project
    places = ["--project-dir", settings.project, "--profiles-dir", profiles]
    arguments = [*places, "--target-path", str(target), "--log-path", str(logs)]
    arguments += ["--target", settings.target] if settings.target else []
    arguments += ["--vars", settings.vars] if settings.vars else []
    takes_refresh = settings.full_refresh and settings.command in ("build", "run", "seed")
    options = ["--full-refresh"] if takes_refresh else []
    options += ["--threads", str(settings.threads)] if settings.threads else []
    return {
        "command": settings.command,
        "arguments": arguments,
        "places": places,
        "options": options,
        "exclude": ["--exclude", *settings.exclude] if settings.exclude else [],
        "deps": settings.deps,
        "socket": socket_number,
        "parent": os.getpid(),
    }


class Dbt:
    """The child. `with Dbt(context) as dbt: dbt.read_project(); …; dbt.build(turn, selections)`."""

    def __init__(self, context: RunContext, target: Path) -> None:
        self._context = context
        self._settings: DbtSettings = context.settings
        self._target = target
        self._buffer = b""
        self._done = 0

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        ours.settimeout(LOOK_EVERY_S)
        self._socket = ours
        plan = plan_of(self._settings, self._target, self._target.with_name("logs"), theirs.fileno())
        environment = environment_for(self._context, self._settings.environment)
        environment |= {"DO_NOT_TRACK": "1", "DBT_USE_COLORS": "false", "PYTHONUNBUFFERED": "1"}
        python = self._settings.python or sys.executable
        try:
            self._process = subprocess.Popen(
                [python, str(PROGRAM), json.dumps(plan)],
                cwd=self._settings.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            ours.close()
            raise RunFailed(f"dbt cannot be started: {error.strerror}.", private=f"{python}: {error}") from error
        finally:
            theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._end()

    def read_project(self) -> None:
        """Wait until dbt has read the project. Raises RunFailed, ExtraMissing or RunCancelled."""
        while (said := self._next_line()) is not None:
            if said.get("ready"):
                return
            if "missing" in said:
                raise ExtraMissing(f"dbt is not installed for this job: {said['missing']}.", remedy=_how_to_install(self._settings))
            if "broken" in said:
                raise RunFailed(str(said["broken"]))
        self._context.check_stopping()
        raise RunFailed(f"dbt ended while it read the project (exit code {self._end()}).")

    def build(self, turn: Turn, selections: dict[str, list[str]]) -> Built:
        """Build what the selections name together, as long as the turn allows. Raises RunTimedOut."""
        deadline = None if turn.max_hold_s is None else time.monotonic() + turn.max_hold_s
        socket.send_fds(self._socket, [json.dumps(selections).encode() + b"\n"], [turn.lease_fd])
        built = Built(why="it ended before it had said how it went")
        while (said := self._next_line(deadline)) is not None:
            if "built" in said:
                built = Built(bool(said["built"]), said["why"], said["chosen"])
            else:
                self._note(said)
        built.exit_code = self._ended(deadline)
        self._context.check_stopping()
        return built

    def _ended(self, deadline: float | None) -> int:
        """The exit code. It may take its time: DuckDB folds the WAL into the file when dbt closes it. Raises RunTimedOut."""
        try:
            return self._process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._timed_out() from None

    def _timed_out(self) -> RunTimedOut:
        self._process.send_signal(signal.SIGTERM)
        remedy = "Let it build less in one run (`select`), or raise `max_hold` of the job."
        return RunTimedOut("dbt has had the database for the most that it may, and was ended.", remedy=remedy)

    def _note(self, said: dict[str, Any]) -> None:
        if "ended" in said:
            self._done += 1
            self._context.progress(self._done, said["total"], unit="nodes")
        elif "started" in said:
            self._context.progress(self._done, said["total"], unit="nodes", message=said["started"])

    def _next_line(self, deadline: float | None = None) -> dict[str, Any] | None:
        """What dbt says next; None when it has ended. Raises RunTimedOut at the deadline."""
        while b"\n" not in self._buffer:
            if deadline is not None and time.monotonic() >= deadline:
                raise self._timed_out()
            try:
                data = self._socket.recv(LINE_BYTES)
            except TimeoutError:
                continue
            except OSError:
                return None
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _end(self) -> int:
        """The exit code of a process that has nothing to do any more; one that does not end by itself is ended."""
        try:
            return self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _how_to_install(settings: DbtSettings) -> str:
    if settings.python:
        return "Install dbt-core and dbt-duckdb for the Python that `python` names."
    return "`pip install 'pondkeeper[dbt]'` into the keeper's environment, or name another Python: `python = \"…\"`."


def same_build(context: RunContext) -> dict[str, Any]:
    """What two runs must have in common to be built as one: all but the selection."""
    settings: DbtSettings = context.settings
    names = [name for name in DbtSettings.__slots__ if name not in ("select", "max_hold_s", "python", "deps", "threads")]
    same = {name: getattr(settings, name) for name in names}
    return same | {"database": str(context.plan.database_file), "environment": dict(settings.environment)}

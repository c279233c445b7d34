"""The work of a run: `python -m pondkeeper.kinds.work RUN_FOLDER SECRETS_FD`, the child of its supervisor.

Loads the module of the kind and lets it run. What it prints is the log; what it raises is how the run failed.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from pondkeeper.errors import ExtraMissing, PondkeeperError, RunFailed, RunLost
from pondkeeper.files.paths import RunPaths
from pondkeeper.jobs.plan import read_plan
from pondkeeper.jobs.status import Phase, status_in
from pondkeeper.kinds.context import RunContext
from pondkeeper.workers.importing import import_quickly

Run = Callable[[RunContext], None]


def main(arguments: list[str]) -> int:
    """Carry out the run; 0 when it did what it was for, else the exit code of a program that it was about, or 1."""
    import_quickly()
    paths, secrets_fd = RunPaths(Path(arguments[0])), int(arguments[1])
    plan = read_plan(paths.plan_json)
    status = status_in(paths.status_json)
    if status is None:
        raise RunLost(private="no status")
    plan = dataclasses.replace(plan, attempt=status.attempt, trigger=status.trigger)  # Why: plan.json stays as the first attempt was planned
    status.phase = Phase.RUNNING
    status.started_at = status.started_at or time.time()
    context = RunContext(plan, status, hide=_teller(secrets_fd))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: context.stopping.set())
    error = _tried(lambda: kind_of(plan.job.kind)(context))
    closing = _tried(context.end)
    error = error or closing
    if error is not None:
        print(f"{error.code}: {error.message}" + (f" ({error.private})" if error.private else ""), flush=True)  # noqa: T201
    context.close(error.to_wire() if error is not None else None)
    return 0 if error is None else int(error.details.get("exit_code") or 1)


def _tried(step: Callable[[], None]) -> PondkeeperError | None:
    """Take the step; what it failed with."""
    try:
        step()
        return None
    except PondkeeperError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a kind runs other people's code: whatever it raises is how the run failed
        traceback.print_exc()
        return RunFailed(f"{type(error).__name__}: {_first_line(error)}")


def kind_of(name: str) -> Run:
    """The function that carries out runs of this kind. Raises ExtraMissing when this release has none."""
    room = f"pondkeeper.kinds.{name}"
    package = importlib.util.find_spec(room)
    if package is None:
        raise ExtraMissing(f"This release of Pondkeeper has no jobs of the kind {name}.")
    is_package = package.submodule_search_locations is not None
    run: Run = importlib.import_module(f"{room}.run" if is_package else room).run
    return run


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else "no more was said"


def _teller(secrets_fd: int) -> Callable[[str], None]:
    """Tells the supervisor, which writes the log, what must not stand in it."""
    os.set_inheritable(secrets_fd, False)
    os.set_blocking(secrets_fd, True)
    lock = threading.Lock()

    def hide(text: str) -> None:
        with lock:
            os.write(secrets_fd, json.dumps(text).encode() + b"\n")

    return hide


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Why not sys.exit: a thread that a kind has left behind must not keep a run alive whose end is known.

"""A job of the kind `command` that has the database to itself (`lease = "whole"`). Without a lease its supervisor runs it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pondkeeper.errors import JobInvalid, RunFailed, RunTimedOut
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.environment import environment_for
from pondkeeper.kinds.warehouse import Turn
from pondkeeper.workers.descendants import descendants, end, reap
from pondkeeper.workers.fence import adopt_orphans

END_WITHIN_S: Final = 10.0
LOOK_EVERY_S: Final = 0.02


def run(context: RunContext) -> None:
    """Run the program while it alone may write the database. Raises RunFailed, RunTimedOut, RunCancelled or JobInvalid."""
    settings = context.settings
    environment = environment_for(context, settings.environment)
    folder = Path(settings.folder) if settings.folder else context.plan.workdir
    adopt_orphans()  # Why: what the program leaves behind must be found.
    with context.warehouse.lease(f"job {context.plan.job.name}", settings.max_hold_s or None) as turn:
        context.check_stopping()
        code = _run(context, settings.command, environment, folder, turn)
    context.check_stopping()
    if code != 0:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise RunFailed(f"{Path(settings.command[0]).name} ended with {how}.", exit_code=code if code > 0 else 128 - code)
    context.phase(Phase.RUNNING)


def _run(
    context: RunContext, command: Sequence[str], environment: dict[str, str], folder: Path, turn: Turn
) -> int:
    """The program's exit code, or minus the signal that ended it; nothing of it has the database open any more."""
    try:
        process = subprocess.Popen(
            list(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, pass_fds=[turn.lease_fd]
        )
    except OSError as error:
        name = Path(command[0]).name
        raise JobInvalid(f"{name} cannot be started: {error.strerror}.", remedy="Correct `command` or `folder` of the job.") from error
    began = time.monotonic()
    try:
        return process.wait(turn.max_hold_s)
    except subprocess.TimeoutExpired:
        _end_all(descendants)
        process.poll()  # Why: it was taken note of already, and would be missed else.
        had_s = time.monotonic() - began
        raise RunTimedOut(
            f"The program has had the database for {had_s:.0f} s, the most that it may, and was ended.",
            remedy="Let it do less in one run, or raise `max_hold_s` of the job.",
        ) from None
    finally:
        _end_left_behind(context)


def _end_left_behind(context: RunContext) -> None:
    """End what the program has left behind. Why now: it has inherited the lease, and may have the database open."""
    if left := descendants():
        context.say(f"The program has left {len(left)} processes behind: ended.")
        _end_all(descendants)


def _end_all(find: Callable[[], Sequence[int]]) -> None:
    """End the processes that `find` finds: SIGTERM, and after a while SIGKILL until it finds none."""
    kill_at = time.monotonic() + END_WITHIN_S
    end(find(), signal.SIGTERM)
    while found := find():
        reap(0)
        if time.monotonic() >= kill_at:
            end(found, signal.SIGKILL)
        time.sleep(LOOK_EVERY_S)

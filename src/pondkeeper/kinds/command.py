"""A job of the kind `command` that has the database to itself (`lease = "whole"`). Without a lease its supervisor runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pondkeeper.errors import JobInvalid, RunFailed, RunTimedOut
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds import dying
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
    _refuse_what_is_not_there(settings.command[0], folder, environment)
    adopt_orphans()  # Why: what the program leaves behind must be found.
    with context.warehouse.lease(f"job {context.plan.job.name}", settings.max_hold_s or None) as turn:
        context.check_stopping()
        code = _run(context, settings.command, environment, folder, turn)
    context.check_stopping()
    if code != 0:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise RunFailed(f"{Path(settings.command[0]).name} ended with {how}.", exit_code=code if code > 0 else 128 - code)
    context.phase(Phase.RUNNING)


def _refuse_what_is_not_there(program: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Raise JobInvalid for a folder that is none, and for what cannot be executed. Why now: nobody waits for a turn in vain."""
    if not folder.is_dir():
        raise JobInvalid("The folder of the job is not there.", remedy="Correct `folder` of the job.", private=str(folder))
    place = str(folder / program) if os.sep in program else program
    if shutil.which(place, path=environment.get("PATH")) is None:
        raise JobInvalid(f"{Path(program).name} is not there, or cannot be executed.", remedy="Correct `command` of the job.")


def _run(
    context: RunContext, command: Sequence[str], environment: dict[str, str], folder: Path, turn: Turn
) -> int:
    """The program's exit code, or minus the signal that ended it; nothing of it has the database open any more."""
    shim = [sys.executable, "-I", "-S", dying.__file__, str(os.getpid())]
    process = subprocess.Popen(
        [*shim, *command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, pass_fds=[turn.lease_fd]
    )
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

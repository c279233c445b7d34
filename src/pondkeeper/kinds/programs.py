"""The program of an attempt: started in a group of its own, dying with its supervisor, and ended step by step."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from pondkeeper.workers.descendants import descendants, end, reap
from pondkeeper.workers.fence import die_with_parent

OOM_SCORE_ADJ: Final = 500
KILL_AGAIN_S: Final = 0.1


class Program:
    """A started program and everything that descends from it. Raises OSError when it cannot be started."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, pass_fds: Sequence[int] = ()
    ) -> None:
        supervisor = os.getpid()

        def prepare() -> None:
            die_with_parent()
            if os.getppid() != supervisor:
                os._exit(0)  # Why: it died before the kernel was asked to tell us.
            _be_the_first_to_go()

        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            process_group=0,
            pass_fds=pass_fds,
            preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
        )
        self._step_at: float | None = None
        self.code: int | None = None

    @property
    def output(self) -> IO[bytes]:
        """What it and its descendants write."""
        assert self._process.stdout is not None
        return self._process.stdout

    def look(self) -> None:
        """Take note of the dead: once the program itself has ended, `code` is its exit code, or minus its signal."""
        status = reap(self._process.pid)
        if status is not None:
            self.code = self._process.returncode = os.waitstatus_to_exitcode(status)

    def left(self) -> list[int]:
        """What lives of it and of what it has started."""
        return descendants()

    def ask_to_end(self, kill_after_s: float) -> None:
        """SIGTERM to its group; SIGKILL to all of it is due after a while."""
        if self.code is None:
            _signal_group(self._process.pid, signal.SIGTERM)
        else:
            end(self.left(), signal.SIGTERM)
        self._step_at = time.monotonic() + kill_after_s

    @property
    def is_ending(self) -> bool:
        """Whether it was asked to end."""
        return self._step_at is not None

    def patience_s(self, longest_s: float) -> float:
        """How long nothing is due."""
        return longest_s if self._step_at is None else min(longest_s, max(0.0, self._step_at - time.monotonic()))

    def kill_if_due(self) -> None:
        """SIGKILL to everything that lives of it, again and again, for those that are born meanwhile."""
        if self._step_at is not None and time.monotonic() >= self._step_at:
            end(self.left(), signal.SIGKILL)
            self._step_at = time.monotonic() + KILL_AGAIN_S


def _be_the_first_to_go() -> None:
    """When memory runs out, runs are killed before the keeper and its children."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError:  # Why: some containers forbid it, and it is no condition of anything.
        return


def _signal_group(leader: int, number: signal.Signals) -> None:
    for each in (number, signal.SIGCONT):
        try:
            os.killpg(leader, each)
        except (ProcessLookupError, PermissionError):  # it has ended; or it is another user's, by sudo
            return

"""The program of an attempt: started or forked in a group of its own, dying with its supervisor, and ended step by step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NoReturn

from pondkeeper.workers.descendants import descendants, end, reap
from pondkeeper.workers.fence import die_with_parent
from pondkeeper.workers.forking import keep_only

OOM_SCORE_ADJ: Final = 500
KILL_AGAIN_S: Final = 0.1


@dataclass
class Forked:
    """A child that was forked, as far as it is like a Popen."""

    pid: int
    stdout: IO[bytes]
    returncode: int | None = None


class Program:
    """A program that goes on, and everything that descends from it."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked) -> None:
        self._process = process
        self._step_at: float | None = None
        self.code: int | None = None

    @classmethod
    def started(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, pass_fds: Sequence[int] = ()
    ) -> Program:
        """A program of its own. Raises OSError when it cannot be started."""
        supervisor = os.getpid()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            process_group=0,
            pass_fds=pass_fds,
            preexec_fn=lambda: _belong_to(supervisor),  # noqa: PLW1509 - this process has one thread
        )
        return cls(process)

    @classmethod
    def forked(
        cls, work: Callable[[], int], environment: Mapping[str, str], folder: Path, pass_fds: Sequence[int] = ()
    ) -> Program:
        """The same for work that this process has loaded already: a fork of it, whose exit code is what `work` returns."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(work, environment, folder, write_end, pass_fds, supervisor)
        os.close(write_end)
        with suppress(OSError):  # Why here as well: it may be told to end before it has come so far; or it has ended.
            os.setpgid(pid, pid)
        return cls(Forked(pid, os.fdopen(read_end, "rb", buffering=0)))

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


def _become(
    work: Callable[[], int], environment: Mapping[str, str], folder: Path, output: int, pass_fds: Sequence[int], supervisor: int
) -> NoReturn:
    """Be the work, in a child that was just forked: nothing of the supervisor's is left open, least of all its lock."""
    code = 1
    try:
        os.setpgid(0, 0)
        _belong_to(supervisor)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for ours, theirs in ((nowhere, 0), (output, 1), (output, 2)):
            os.dup2(ours, theirs)
        keep_only(pass_fds)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        code = work()
    except BaseException:  # noqa: BLE001  Why: whatever it is, it must not go on as a second supervisor.
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _belong_to(supervisor: int) -> None:
    """Have this process die with the supervisor, its parent, and before the keeper when memory runs out."""
    die_with_parent()
    if os.getppid() != supervisor:
        os._exit(0)  # Why: it died before the kernel was asked to tell us.
    _be_the_first_to_go()


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

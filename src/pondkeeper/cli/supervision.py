"""One program in the foreground: it gets our terminal and our signals, and its exit code becomes ours.

It is ended when it has had its time, and what it leaves behind with the database open is ended too.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pondkeeper.workers.descendants import descendants, end, reap
from pondkeeper.workers.fence import adopt_orphans

PASSED_ON: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)
WAITED_FOR: Final = PASSED_ON | {signal.SIGCHLD}
LOOK_EVERY_S: Final = 1.0
KILL_AGAIN_S: Final = 0.1
REAP_POLL_S: Final = 0.02


@dataclass(frozen=True)
class Bounds:
    """How long a program may run (None: as long as it likes), and its time between SIGTERM and SIGKILL.

    `on_end(signal)` is told before the program and its descendants get that signal.
    """

    longest_s: float | None
    kill_after_s: float
    on_end: Callable[[signal.Signals], None]


@dataclass(frozen=True)
class Ended:
    """How a program has ended: its exit code (128 + N when signal N killed it), and whether its time was over."""

    code: int
    was_late: bool


def run_program(program: Sequence[str], environment: Mapping[str, str], *, keep_open: int, bounds: Bounds) -> Ended:
    """Run a program to its end; OSError if it cannot start.

    It inherits the descriptor `keep_open`: the lease is held until it ends, also when we are killed before. Descendants
    that outlive it become our children.
    """
    adopt_orphans()
    # Why blocked: a signal that arrives between the start of the program and the wait must be passed on, not lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    try:
        pid = _start(program, {**os.environ, **environment}, keep_open, before)
        return _Watch(pid, bounds).wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(program: Sequence[str], environment: Mapping[str, str], keep_open: int, mask: set[int]) -> int:
    was_inheritable = os.get_inheritable(keep_open)
    os.set_inheritable(keep_open, True)
    try:
        # Why setsigdef: Python ignores SIGPIPE, and a program that inherits that never learns that its reader is gone.
        return os.posix_spawnp(program[0], list(program), environment, setsigmask=mask, setsigdef=[signal.SIGPIPE])
    finally:
        os.set_inheritable(keep_open, was_inheritable)


class _Watch:
    """Waits for one program: passes signals on, and ends it step by step when its time is over."""

    def __init__(self, pid: int, bounds: Bounds) -> None:
        self._pid = pid
        self._bounds = bounds
        self._next_step = signal.SIGTERM
        self._told: set[signal.Signals] = set()
        self._step_at = None if bounds.longest_s is None else time.monotonic() + bounds.longest_s

    def wait(self) -> Ended:
        """Return when the program has ended; where its time was over, when its descendants have ended too."""
        while True:
            received = signal.sigtimedwait(WAITED_FOR, self._patience_s())
            if received is not None and received.si_signo != signal.SIGCHLD:
                if _is_from_a_process(received):
                    os.kill(self._pid, received.si_signo)
            elif (status := reap(self._pid)) is not None:
                return self._ended(status)
            elif self._step_at is not None and time.monotonic() >= self._step_at:
                self._take_step()

    def _patience_s(self) -> float:
        """Trap: a SIGCHLD that another thread of ours gets is lost, so we look now and then without one."""
        step_at = math.inf if self._step_at is None else self._step_at
        return min(LOOK_EVERY_S, max(0.0, step_at - time.monotonic()))

    def _take_step(self) -> None:
        """SIGTERM, after a while SIGKILL, and that again for those that were born meanwhile."""
        number = self._next_step
        if number not in self._told:
            self._told.add(number)
            self._bounds.on_end(number)
        end(descendants(), number)
        pause_s = KILL_AGAIN_S if number is signal.SIGKILL else self._bounds.kill_after_s
        self._next_step, self._step_at = signal.SIGKILL, time.monotonic() + pause_s

    def _ended(self, status: int) -> Ended:
        was_late = bool(self._told)
        if was_late:
            end_all(descendants, self._bounds.kill_after_s)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code if code >= 0 else 128 - code, was_late)


def _is_from_a_process(received: signal.struct_siginfo) -> bool:
    """Whether somebody sent it to us alone. What the terminal sends (Ctrl-C), the program got as well."""
    return received.si_code <= 0


def end_all(find: Callable[[], Sequence[int]], kill_after_s: float) -> None:
    """End the processes that `find` finds: SIGTERM, and from `kill_after_s` on SIGKILL until it finds none."""
    kill_at = time.monotonic() + kill_after_s
    end(find(), signal.SIGTERM)
    while found := find():
        reap(0)
        if time.monotonic() >= kill_at:
            end(found, signal.SIGKILL)
        time.sleep(REAP_POLL_S)

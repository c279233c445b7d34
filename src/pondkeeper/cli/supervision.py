"""One program in the foreground: it gets our terminal and our signals, and its exit code becomes ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

PASSED_ON: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)


def run_program(program: Sequence[str], environment: Mapping[str, str], *, keep_open: int) -> int:
    """Run a program to its end and return its exit code, 128 + N when signal N killed it; OSError if it cannot start.

    It inherits the descriptor `keep_open`: the lease is held until it ends, also when we are killed before.
    """
    # Why blocked: a signal that arrives between the start of the program and the wait must be passed on, not lost.
    waited_for = PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        pid = _start(program, {**os.environ, **environment}, keep_open, before)
        return _wait(pid, waited_for)
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


def _wait(pid: int, waited_for: set[signal.Signals] | frozenset[signal.Signals]) -> int:
    """Pass signals on until the program has ended."""
    while True:
        received = signal.sigwaitinfo(waited_for)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return _exit_code(status)
        elif _is_from_a_process(received):
            os.kill(pid, received.si_signo)


def _is_from_a_process(received: signal.struct_siginfo) -> bool:
    """Whether somebody sent it to us alone. What the terminal sends (Ctrl-C), the program got as well."""
    return received.si_code <= 0


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code

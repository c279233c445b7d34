"""Starts a program that does not outlive its parent: `python dying.py PARENT_PID PROGRAM [ARGUMENTS]`.

Why a program: a child must ask the kernel for it between fork and exec, and in a process with threads nothing may run there.
It needs the standard library alone, and is gone after some milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the program. Trap: the kernel means the thread that forked, so start this from one that lives on."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(arguments[0]):  # else it has died before the kernel was asked
        os.execvp(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

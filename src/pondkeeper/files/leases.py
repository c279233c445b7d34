"""Kernel leases: proof that nobody else has a file open, whatever program, mount or container it would be.

`F_SETLEASE` with `F_WRLCK` succeeds only while our descriptor is the only one of the inode; while we hold it, whoever
opens the file waits (at most /proc/sys/fs/lease-break-time, 45 s). So nobody can slip in between the question and
what we do because of the answer.
"""

from __future__ import annotations

import errno
import fcntl
import signal

_OTHERS_HAVE_IT = frozenset({errno.EAGAIN, errno.EBUSY})


def ignore_lease_signals() -> None:
    """Call once in the main thread of a process that takes leases.

    Trap: the kernel sends SIGIO to the holder when somebody opens the file, and its default action ends the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def hold_alone(descriptor: int) -> bool | None:
    """Take the lease: True when nobody else has the file open, False when somebody has, None when we cannot know.

    None: the file system has no leases, or the file belongs to another user.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return False if error.errno in _OTHERS_HAVE_IT else None
    return True


def is_held_alone(descriptor: int) -> bool:
    """Whether the lease is still whole: nobody waits for it, and the kernel has not taken it back."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK


def let_others_in(descriptor: int) -> None:
    """Give the lease back; whoever waits to open the file goes on. Closing the descriptor does the same."""
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

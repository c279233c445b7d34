"""How soon the kernel lets a process run when all processors are busy: by the length of the slices it asks for.

Linux' scheduler (EEVDF) gives a task that asks for short slices the same fair share, in more and smaller pieces, and
gives it the next piece sooner. So the keeper and its children ask for short ones, and a reader in the middle of a long
query for long ones: it loses nothing but its say in when. Neither needs a privilege, and both can be taken back, which
for a raised nice value is not so. A kernel before 6.12 takes the request and ignores it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SHORT_S = 0.0001
LONG_S = 0.1
_SCHED_ATTR = struct.Struct("=IIQiIQQQII")  # size, policy, flags, nice, priority, runtime, deadline, period, clamps
_RUNTIME = 5
_SYSTEM_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
_libc = ctypes.CDLL(None, use_errno=True)


def ask_for(pid: int, slice_s: float) -> None:
    """Ask for slices of that length for every thread of the process; where the kernel will not, nothing changes."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for thread in threads:
        attributes = _attributes(int(thread))
        if attributes is not None:
            attributes[_RUNTIME] = int(slice_s * 1e9)
            _call(0, int(thread), ctypes.create_string_buffer(_SCHED_ATTR.pack(*attributes)), 0)


def slice_s(thread: int) -> float | None:
    """The slice that a thread has; 0 or None where the kernel does not say."""
    attributes = _attributes(thread)
    return attributes[_RUNTIME] / 1e9 if attributes is not None else None


def _attributes(thread: int) -> list[int] | None:
    """What the kernel has for the thread. Why first: setting takes all of it, and policy and nice value are to stay."""
    buffer = ctypes.create_string_buffer(_SCHED_ATTR.size)
    if _call(1, thread, buffer, _SCHED_ATTR.size, 0) != 0:
        return None
    return list(_SCHED_ATTR.unpack(buffer.raw))


def _call(which: int, thread: int, buffer: ctypes.Array[ctypes.c_char], *rest: int) -> int:
    numbers = _SYSTEM_CALLS.get(platform.machine())
    return -1 if numbers is None else int(_libc.syscall(numbers[which], thread, buffer, *rest))

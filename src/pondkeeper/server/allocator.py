"""How the keeper's memory allocator treats the pieces of large answers that it relays."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 64 * 1024 * 1024
LARGE_BYTES = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MiB that is free, instead of handing it to the kernel and asking for it again.

    Why: a piece of an answer has about 200 KiB, lives for a moment, and is beyond what glibc keeps by itself. Each then
    costs page faults: a third of the keeper's time while it relays. Other allocators do not know the call.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)

"""Who knocks: whether somebody opens a file, told by the kernel (inotify), without opening it ourselves.

A program that tries `duckdb.connect` again and again while we have the file leaves no trace but its opens: DuckDB's
lock refuses it, and nobody else hears of it. Watching is harmless beside DuckDB's lock: a watch is no descriptor of the
file, so closing it drops nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_IN_OPEN = 0x20
_READ_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Knocks:
    """Hears every open of `file` from now on, by whatever program and path; deaf where the kernel has no watch left."""

    def __init__(self, file: Path) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor >= 0:
            _libc.inotify_add_watch(self._descriptor, os.fsencode(file), _IN_OPEN)

    def heard(self) -> bool:
        """Whether somebody has opened the file since the last call."""
        if self._descriptor < 0:
            return False
        heard = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, _READ_BYTES):
                heard = True
        return heard

    def close(self) -> None:
        """Stop listening."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

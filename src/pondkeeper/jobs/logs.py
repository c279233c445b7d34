"""Logs of runs, read piece by piece, while they are written and afterwards. It blocks as long as the disk does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PIECE_BYTES: Final = 64 * 1024
MAX_TAIL_BYTES: Final = 4 * 1024 * 1024


def read_piece(file: Path, offset: int) -> bytes:
    """What is in the log from this byte on, at most one piece of it; nothing at its end, and where there is none."""
    try:
        descriptor = _opened(file)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, PIECE_BYTES, offset)
    finally:
        os.close(descriptor)


def _opened(file: Path) -> int:
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def offset_of_tail(file: Path, lines: int) -> int:
    """Where the last so many lines begin, of the last megabytes at most."""
    try:
        descriptor = _opened(file)
    except FileNotFoundError:
        return 0
    try:
        size = os.fstat(descriptor).st_size
        begin = max(0, size - MAX_TAIL_BYTES)
        text = os.pread(descriptor, size - begin, begin)
    finally:
        os.close(descriptor)
    at = len(text) - text.endswith(b"\n")  # Why: the end of the last line begins no other.
    for _ in range(lines):
        at = text.rfind(b"\n", 0, at)
        if at < 0:
            return begin
    return min(size, begin + at + 1)

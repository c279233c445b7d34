"""Files with a DuckDB header of a storage version that nobody knows, and blocks of one letter each: small, quick, exact."""

from __future__ import annotations

import struct
from pathlib import Path

from pondkeeper.archive.tree import BLOCK_BYTES
from pondkeeper.engine.fileformat import HEADER_BYTES

_UNKNOWN_STORAGE_VERSION = 1


def headers(iteration: int) -> bytes:
    """The three headers; nothing about the blocks can be concluded from them."""
    main = struct.pack("<Q4sQ", 0, b"DUCK", _UNKNOWN_STORAGE_VERSION).ljust(HEADER_BYTES, b"\0")
    others = [struct.pack("<QQqqQQ", 0, number, -1, -1, 0, BLOCK_BYTES) for number in (iteration - 1, iteration)]
    return main + b"".join(other.ljust(HEADER_BYTES, b"\0") for other in others)


def content(letters: str, iteration: int = 1) -> bytes:
    """A file with a block for each letter; `.` is half a block, which only the last one may be."""
    blocks = [b"." * (BLOCK_BYTES // 2) if letter == "." else letter.encode() * BLOCK_BYTES for letter in letters]
    return headers(iteration) + b"".join(blocks)


def offset(block: int) -> int:
    """Where a block of the archive begins; block 0 is the headers."""
    return 0 if block == 0 else 3 * HEADER_BYTES + (block - 1) * BLOCK_BYTES


def write(path: Path, letters: str, iteration: int = 1) -> Path:
    path.write_bytes(content(letters, iteration))
    return path

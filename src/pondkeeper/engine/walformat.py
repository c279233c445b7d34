"""DuckDB's write-ahead log, read from bytes: how far its entries carry their checksums. Imports no duckdb.

Layout: an entry of some 40 bytes that says which WAL this is, without a checksum; then entries of a size (8 bytes), a
checksum (8 bytes) and a payload. A commit ends with an entry that is always the same, and an fsync.

**Trap:** DuckDB takes an entry that is damaged for the end of the log, and drops what follows without a word; a tail of
zeros, which a power cut can leave, it refuses (1.5). So somebody has to look before it opens the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.engine.fileformat import Bytes, checksum

LONGEST_HEAD_BYTES = 256
_FRAME = struct.Struct("<QQ")
_COMMIT_PAYLOAD = bytes.fromhex("640064ffff")
_WORD_MASK = (1 << 64) - 1
_REST_FACTOR = 0xC6A4A7935BD1E995
_REST_SEED = 0xE17A1465
_SEARCHED_BYTES = 64 << 20
_FIRST_FIELD, _VERSION_FIELD, _IDENTITY_FIELD, _LAST_FIELD, _END_OF_ENTRY = 100, 101, 102, 103, 0xFFFF
_KNOWN_VERSION = 2

Checksum = Callable[[Bytes], int]


@dataclass(frozen=True)
class WalState:
    """A WAL: up to `whole_bytes` every entry carries its checksum.

    `lost_commits`: beyond that lies a commit with something after it, so it was on disk before: this is no torn tail.
    """

    size_bytes: int
    whole_bytes: int
    lost_commits: bool

    @property
    def is_whole(self) -> bool:
        return self.whole_bytes == self.size_bytes


def read_wal(path: Path, of: Checksum = checksum) -> WalState:
    """What the WAL looks like; an empty one where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return WalState(0, 0, lost_commits=False)
    version, at = _head(data)
    if version not in (0, _KNOWN_VERSION):  # Why: of one that we do not know nothing can be said.
        return WalState(len(data), len(data), lost_commits=False)
    while at and (end := _frame_end(data, at, of)):
        at = end
    return WalState(len(data), at, at < len(data) and _has_later_commit(data, at, of))


def entry_checksum(payload: Bytes, of: Checksum = checksum) -> int:
    """DuckDB's checksum of bytes of any length: that of whole words, and a hash of the rest."""
    whole = len(payload) // 8 * 8
    result = of(payload[:whole])
    return result if whole == len(payload) else result ^ _of_rest(bytes(payload[whole:]))


def _of_rest(rest: bytes) -> int:
    found = _REST_SEED ^ (len(rest) * _REST_FACTOR & _WORD_MASK)
    found = (found ^ int.from_bytes(rest, "little")) * _REST_FACTOR & _WORD_MASK
    found = (found ^ found >> 47) * _REST_FACTOR & _WORD_MASK
    return found ^ found >> 47


def _head(data: bytes) -> tuple[int, int]:
    """The version of the WAL, and where its first entry ends, which says so; zeros where it is not whole."""
    at, version, field = 0, 0, -1
    try:
        while (found := int.from_bytes(data[at : at + 2], "little")) != _END_OF_ENTRY:
            if not max(field + 1, _FIRST_FIELD) <= found <= _LAST_FIELD or at > LONGEST_HEAD_BYTES:
                return 0, 0
            field = found
            count, at = (1, at + 2) if field != _IDENTITY_FIELD else _varint(data, at + 2)
            for _ in range(count):
                value, at = _varint(data, at)
                version = value if field == _VERSION_FIELD else version
    except IndexError:
        return 0, 0
    return version, at + 2 if field >= _VERSION_FIELD else 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _frame_end(data: bytes, at: int, of: Checksum) -> int:
    """Where the whole entry that begins there ends; 0 when it is not whole."""
    if at + _FRAME.size > len(data):
        return 0
    size, expected = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    end: int = start + size
    if not size or end > len(data) or entry_checksum(memoryview(data)[start:end], of) != expected:
        return 0
    return end


def _has_later_commit(data: bytes, begin: int, of: Checksum) -> bool:
    """Trap: the end of a commit that was never acknowledged may have reached the disk, and its middle not. What follows
    the end of a commit was written after that had been synced."""
    commit = _FRAME.pack(len(_COMMIT_PAYLOAD), entry_checksum(_COMMIT_PAYLOAD)) + _COMMIT_PAYLOAD
    limit = begin + _SEARCHED_BYTES
    at = data.find(commit, begin, limit)
    while at >= 0:
        if _frame_end(data, at + len(commit), of):
            return True
        at = data.find(commit, at + 1, limit)
    return False

"""DuckDB's file format, read from bytes: headers, block checksums, and which blocks are in use. Imports no duckdb.

Layout: three headers of 4,096 bytes (the main header, two database headers of which the one with the higher iteration
is active), then blocks of `block_size_bytes`. Every header and block begins with an 8-byte checksum of what follows.
A checkpoint writes only into blocks that were free at the checkpoint before, or new, or hold metadata (those it
rewrites in place); then it switches the active header. `BlockUse` reads the free and the metadata blocks from the file.

**Trap:** the checksum is `5381 ^ word * K ^ word * K ...`: the order of the words does not matter and equal words cancel
each other. Two values swapped by an UPDATE, or rows in another order, give the same checksum. An equal checksum
therefore proves nothing; only a different one does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pondkeeper.errors import DatabaseEncrypted, DatabaseUnreadable

HEADER_BYTES = 4096
HEADERS_BYTES = 3 * HEADER_BYTES
CHECKSUM_BYTES = 8
DEFAULT_BLOCK_BYTES = 262_144
KNOWN_BLOCK_SIZES = frozenset(2**power for power in range(14, 19))
KNOWN_STORAGE_VERSIONS = frozenset({64, 65, 66, 67, 68, 999})

_MAGIC = b"DUCK"
_MAIN = struct.Struct("<Q4sQ4Q32s32s")
_DATABASE = struct.Struct("<QQqqQQQQ")
_IDENTITY_AT = 124
_ENCRYPTED_FLAG = 1
_SEED = 5381
_FACTOR = 0xBF58476D1CE4E5B9
_WORD_MASK = (1 << 64) - 1
_BLOCK_ID_MASK = (1 << 56) - 1
_METADATA_PARTS = 64

Bytes = bytes | bytearray | memoryview
Checksum = Callable[[Bytes], int]


@dataclass(frozen=True)
class DatabaseHeader:
    """One of the two database headers. `raw` is the whole header, to recognise it again."""

    iteration: int
    free_list: int
    block_count: int
    block_size_bytes: int
    raw: bytes

    @property
    def size_bytes(self) -> int:
        """The length of a file that has exactly the blocks of this header."""
        return HEADERS_BYTES + self.block_count * self.block_size_bytes


@dataclass(frozen=True)
class Headers:
    """The three headers of a file, checked. `identity` is the random id of files of storage version 67 and later."""

    storage_version: int
    library_version: str
    identity: bytes
    active: DatabaseHeader
    previous: DatabaseHeader
    raw: bytes

    @property
    def is_known(self) -> bool:
        """Whether we have tested this storage version and block size; if not, nothing about blocks may be assumed."""
        return self.storage_version in KNOWN_STORAGE_VERSIONS and self.active.block_size_bytes in KNOWN_BLOCK_SIZES


@dataclass(frozen=True)
class BlockUse:
    """What the active header says of the blocks: which are free, and which hold metadata (rewritten in place)."""

    block_count: int
    free: frozenset[int]
    metadata: frozenset[int]

    def is_used(self, block: int) -> bool:
        return 0 <= block < self.block_count and block not in self.free

    def written_since(self, earlier: BlockUse) -> set[int]:
        """The blocks that the one checkpoint after `earlier` may have written and that are in use now."""
        fresh = set(range(earlier.block_count, self.block_count))
        return {block for block in (fresh | earlier.free | self.metadata) if self.is_used(block)}


def checksum(data: Bytes) -> int:
    """DuckDB's checksum of a header's or block's payload; plain Python, for headers and as the reference."""
    result = _SEED
    for (word,) in struct.iter_unpack("<Q", data):
        result ^= word * _FACTOR & _WORD_MASK
    return result


def is_whole(block: Bytes, of: Checksum = checksum) -> bool:
    """Whether a block or header carries the checksum of its contents."""
    view = memoryview(block)
    return int.from_bytes(view[:CHECKSUM_BYTES], "little") == of(view[CHECKSUM_BYTES:])


def block_offset(block: int, block_size_bytes: int) -> int:
    return HEADERS_BYTES + block * block_size_bytes


def split_headers(raw: bytes) -> list[bytes]:
    """The main header and the two database headers, in the order in which they lie in the file."""
    return [raw[HEADER_BYTES * number : HEADER_BYTES * (number + 1)] for number in range(3)]


def is_of_known_format(raw: bytes) -> bool:
    """Whether the main header, as far as it can be read, names a storage version that we have tested, unencrypted."""
    if len(raw) < HEADER_BYTES or raw[CHECKSUM_BYTES : CHECKSUM_BYTES + len(_MAGIC)] != _MAGIC:
        return True  # Why: nothing is said of a format; a torn header may be all that is wrong.
    _, _, storage_version, flags, *_ = _MAIN.unpack_from(raw)
    return storage_version in KNOWN_STORAGE_VERSIONS and not flags & _ENCRYPTED_FLAG


def is_header_whole(part: bytes) -> bool:
    """Whether a header is all there and carries its checksum."""
    return len(part) == HEADER_BYTES and is_whole(part)


def read_headers(descriptor: int) -> Headers:
    """The headers of an open file; raises DatabaseUnreadable or DatabaseEncrypted for what is not a plain database."""
    return parse_headers(os.pread(descriptor, HEADERS_BYTES, 0))


def parse_headers(raw: bytes) -> Headers:
    """The headers in the first 12,288 bytes of a file."""
    if raw[CHECKSUM_BYTES : CHECKSUM_BYTES + len(_MAGIC)] != _MAGIC:
        raise DatabaseUnreadable("The file is not a DuckDB database.")
    if len(raw) < HEADERS_BYTES:
        raise DatabaseUnreadable("The database file is truncated: it ends within its headers.")
    _, _, storage_version, flags, *_, library, _ = _MAIN.unpack_from(raw)
    if flags & _ENCRYPTED_FLAG:
        raise DatabaseEncrypted
    parts = split_headers(raw)
    if storage_version in KNOWN_STORAGE_VERSIONS and not all(map(is_whole, parts)):
        raise DatabaseUnreadable("A header of the database file is damaged: its checksum does not match.")
    previous, active = sorted(map(_database_header, parts[1:]), key=lambda header: header.iteration)
    identity = raw[_IDENTITY_AT : _IDENTITY_AT + 16]
    return Headers(storage_version, library.rstrip(b"\0").decode("ascii", "replace"), identity, active, previous, raw)


def read_block_use(descriptor: int, headers: Headers, of: Checksum = checksum) -> BlockUse | None:
    """Free and metadata blocks of the active header; None when their list is not written in a way that we know.

    Raises DatabaseUnreadable when a block of the list is damaged or the file lacks blocks that are in use.
    """
    header = headers.active
    if not headers.is_known:
        return None
    try:
        free, metadata = _parse_use(_metadata_chain(descriptor, header, of))
    except struct.error:
        return None
    if not all(0 <= block < header.block_count for block in free | metadata):
        return None
    use = BlockUse(header.block_count, free, metadata)
    _check_length(os.fstat(descriptor).st_size, use, header)
    return use


def _check_length(size_bytes: int, use: BlockUse, header: DatabaseHeader) -> None:
    """Trap: the header counts blocks that an open transaction has reserved and not yet written; those may be missing."""
    whole = (size_bytes - HEADERS_BYTES) // header.block_size_bytes
    missing = use.block_count - whole
    if missing > len(use.free) or any(map(use.is_used, range(whole, use.block_count))):
        raise DatabaseUnreadable(_TOO_SHORT)


def _database_header(raw: bytes) -> DatabaseHeader:
    _, iteration, _, free_list, block_count, block_size_bytes, _, _ = _DATABASE.unpack_from(raw)
    return DatabaseHeader(iteration, free_list, block_count, block_size_bytes, raw)


def _metadata_chain(descriptor: int, header: DatabaseHeader, of: Checksum) -> bytes:
    """The bytes of the chain of metadata parts that starts at the free list: each part begins with its successor."""
    size, pointer, found = header.block_size_bytes, header.free_list & _WORD_MASK, bytearray()
    blocks: dict[int, bytes] = {}
    part_bytes = (size - CHECKSUM_BYTES) // _METADATA_PARTS // 8 * 8
    if pointer == _WORD_MASK:  # Why: a file that was made and never checkpointed has no list.
        return bytes(24)
    for _ in range(header.block_count * _METADATA_PARTS):  # Why: a damaged chain may run in a circle.
        block, part = pointer & _BLOCK_ID_MASK, pointer >> 56
        if block not in blocks:
            blocks[block] = _metadata_block(descriptor, header, block, of)
        start = CHECKSUM_BYTES + part * part_bytes
        found += blocks[block][start + 8 : start + part_bytes]
        (pointer,) = struct.unpack_from("<Q", blocks[block], start)
        if pointer == _WORD_MASK:
            return bytes(found)
    raise DatabaseUnreadable("The list of free blocks of the database file has no end.")


_TOO_SHORT = "The database file is truncated: it is shorter than its header says."


def _metadata_block(descriptor: int, header: DatabaseHeader, block: int, of: Checksum) -> bytes:
    data = os.pread(descriptor, header.block_size_bytes, block_offset(block, header.block_size_bytes))
    if len(data) < header.block_size_bytes:
        raise DatabaseUnreadable(_TOO_SHORT)
    if not is_whole(data, of):
        raise DatabaseUnreadable("The block that lists the free blocks of the database file is damaged.")
    return data


def _parse_use(data: bytes) -> tuple[frozenset[int], frozenset[int]]:
    """Free blocks and metadata blocks: count, ids; count, (id, uses u32); count, (id, mask of its free parts)."""
    (count,) = struct.unpack_from("<Q", data)
    free = struct.unpack_from(f"<{count}q", data, 8)
    at = 8 + 8 * count
    (shared,) = struct.unpack_from("<Q", data, at)
    at += 8 + 12 * shared
    (metadata_count,) = struct.unpack_from("<Q", data, at)
    words = struct.unpack_from(f"<{2 * metadata_count}q", data, at + 8)
    return frozenset(free), frozenset(words[::2])

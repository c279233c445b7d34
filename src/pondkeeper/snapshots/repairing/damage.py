"""What of a database file does not carry its checksum, asked of its bytes before anybody opens it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import (
    HEADERS_BYTES,
    BlockUse,
    Headers,
    block_offset,
    is_header_whole,
    is_of_known_format,
    is_whole,
    parse_headers,
    read_block_use,
    split_headers,
)
from pondkeeper.errors import DatabaseUnreadable


@dataclass(frozen=True)
class Examined:
    """A file that was looked at. `torn_headers`: 0 the main header, 1 and 2 those of the database; `torn` blocks that
    a CHECKPOINT rewrites in place; `use` is None when that is not known, as where its list is torn.

    `known` is False for a format that we have not tested, of which nothing else is said. `reason` says what is wrong.
    """

    parts: list[bytes]
    torn_headers: list[int]
    headers: Headers | None
    use: BlockUse | None
    torn: list[int]
    known: bool = True
    reason: str = "The database file is damaged: a block does not carry its checksum."

    @property
    def is_damaged(self) -> bool:
        return self.known and bool(self.torn_headers or self.torn or self.use is None)


def examine(descriptor: int) -> Examined:
    """Look at what a power cut can tear: headers and metadata blocks. Milliseconds, however large the file."""
    parts = split_headers(os.pread(descriptor, HEADERS_BYTES, 0))
    torn_headers = [number for number, part in enumerate(parts) if not is_header_whole(part)]
    if not is_of_known_format(parts[0]):  # Trap: what has no checksum that we know looks torn.
        return Examined(parts, [], None, None, [], known=False)
    if torn_headers:
        return Examined(parts, torn_headers, None, None, [], reason=_why_not(b"".join(parts)))
    headers = parse_headers(b"".join(parts))
    if not headers.is_known:
        return Examined(parts, [], headers, None, [], known=False)
    try:
        use = read_block_use(descriptor, headers, block_checksum)
    except DatabaseUnreadable as error:
        return Examined(parts, [], headers, None, [], reason=error.message)
    if use is None:
        return Examined(parts, [], headers, None, [], known=False)
    size = headers.active.block_size_bytes
    return Examined(parts, [], headers, use, torn_blocks(descriptor, sorted(use.metadata), size))


def _why_not(headers: bytes) -> str:
    """What is wrong with headers of which one is torn."""
    try:
        parse_headers(headers)
    except DatabaseUnreadable as error:
        return error.message
    return "A header of the database file is damaged: its checksum does not match."


def torn_blocks(descriptor: int, blocks: Iterable[int], size_bytes: int) -> list[int]:
    """Those of the blocks that are not all there, or do not carry their checksum."""
    return [block for block in blocks if not is_block_whole(read_block(descriptor, block, size_bytes), size_bytes)]


def read_block(descriptor: int, block: int, size_bytes: int) -> bytes:
    return os.pread(descriptor, size_bytes, block_offset(block, size_bytes))


def is_block_whole(data: bytes, size_bytes: int) -> bool:
    return len(data) == size_bytes and is_whole(data, block_checksum)

"""The hashes of a file's blocks, in pages: what two versions have in common is seen by comparing pages, then blocks.

Block 0 is the three headers (12,288 bytes); every further block is 256 KiB of the file, whatever the database's own
block size; the last one may be shorter. A page is the digests of 256 neighbouring blocks, so a version of a 10 GB
database that changed two blocks writes at most two pages of 8 KiB and not 1.3 MB of digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pondkeeper.archive.sealing import DIGEST_BYTES
from pondkeeper.engine.fileformat import HEADERS_BYTES

BLOCK_BYTES = 262_144
PAGE_BLOCKS = 256
_PAGE_BYTES = PAGE_BLOCKS * DIGEST_BYTES


def block_count(size_bytes: int) -> int:
    """How many blocks a file of this length has, the headers among them."""
    return 0 if size_bytes == 0 else 1 + max(0, -(-(size_bytes - HEADERS_BYTES) // BLOCK_BYTES))


def block_span(block: int, size_bytes: int) -> tuple[int, int]:
    """Offset and length of a block of a file of this length."""
    if block == 0:
        return 0, min(HEADERS_BYTES, size_bytes)
    start = HEADERS_BYTES + (block - 1) * BLOCK_BYTES
    return start, min(BLOCK_BYTES, size_bytes - start)


def blocks_within(first_byte: int, end_byte: int) -> range:
    """The blocks that hold any byte of this range."""
    if end_byte <= first_byte:
        return range(0)
    return range(_block_of(first_byte), _block_of(end_byte - 1) + 1)


def _block_of(byte: int) -> int:
    return 0 if byte < HEADERS_BYTES else 1 + (byte - HEADERS_BYTES) // BLOCK_BYTES


@dataclass(frozen=True)
class Tree:
    """The digests of all blocks of a file of `size_bytes`, one after the other."""

    size_bytes: int
    digests: bytes

    def __post_init__(self) -> None:
        if len(self.digests) != block_count(self.size_bytes) * DIGEST_BYTES:
            raise ValueError("the digests do not fit the length of the file")

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def digest(self, block: int) -> bytes:
        return self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]

    def blocks_with(self, digest: bytes) -> Iterator[int]:
        """The blocks of this digest, ascending."""
        at = self.digests.find(digest)
        while at >= 0:
            if at % DIGEST_BYTES == 0:
                yield at // DIGEST_BYTES
            at = self.digests.find(digest, at + 1)

    def pages(self) -> list[bytes]:
        """The contents of its pages, in order."""
        return [self.digests[at : at + _PAGE_BYTES] for at in range(0, len(self.digests), _PAGE_BYTES)]

    @classmethod
    def of_pages(cls, size_bytes: int, pages: Iterable[bytes]) -> Tree:
        """Raises ValueError when the pages do not fit the length."""
        return cls(size_bytes, b"".join(pages))

    def replaced(self, size_bytes: int, digests: Mapping[int, bytes]) -> Tree:
        """The tree of a file of this length in which these blocks are others. Every block beyond ours must be among them."""
        length = block_count(size_bytes) * DIGEST_BYTES
        found = bytearray(self.digests[:length].ljust(length, b"\0"))
        for block, digest in digests.items():
            found[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES] = digest
        return Tree(size_bytes, bytes(found))

    def differing(self, earlier: Tree | None) -> list[int]:
        """The blocks that a file of the `earlier` tree lacks for becoming this one, ascending."""
        if earlier is None:
            return list(range(len(self)))
        found: list[int] = []
        for number, (here, there) in enumerate(zip(self.pages(), _padded(earlier.pages(), len(self)), strict=False)):
            if here != there:
                first = number * PAGE_BLOCKS
                count = len(here) // DIGEST_BYTES
                found += [block for block in range(first, first + count) if self.digest(block) != earlier.digest(block)]
        return found


def _padded(pages: list[bytes], blocks: int) -> list[bytes]:
    return pages + [b""] * (-(-blocks // PAGE_BLOCKS) - len(pages))

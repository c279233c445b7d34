"""Check every block of a database file or snapshot that nobody is changing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import CHECKSUM_BYTES, is_whole
from pondkeeper.errors import DatabaseUnavailable
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.source import Source


@dataclass(frozen=True)
class Verified:
    """`damaged` are the blocks in use whose checksum is wrong; `known` is False for a format we have not tested."""

    known: bool
    blocks: int
    blocks_used: int
    damaged: list[int]

    @property
    def whole(self) -> bool:
        return not self.damaged


def verify(path: Path, cancelling: Cancelling) -> Verified:
    """Read all blocks in use. Raises DatabaseUnreadable where headers or the list of blocks are damaged."""
    source = Source(path)
    with source.open():
        now = source.observe()
        source.forget()
        if now.use is None:
            raise DatabaseUnavailable("This storage version or block size is not known, so it cannot be verified.")
        damaged = []
        for block in now.used:
            cancelling.check()
            data = source.peek_block(block, now.block_size_bytes)
            if len(data) < CHECKSUM_BYTES or len(data) % CHECKSUM_BYTES or not is_whole(data, block_checksum):
                damaged.append(block)
        return Verified(True, now.block_count, len(now.used), damaged)

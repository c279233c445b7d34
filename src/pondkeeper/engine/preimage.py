"""What a CHECKPOINT rewrites in place, kept before it does: headers and metadata blocks, so that a power cut in its midst
can be undone. The newest snapshot is such an image of its own; this one is for when there is none of the file as it is.

Trap: it reads the database file as bytes, so only a process that has no database open may do it (the lock trap). The
writer does it before it opens the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import (
    HEADERS_BYTES,
    BlockUse,
    Headers,
    block_offset,
    parse_headers,
    read_block_use,
    read_headers,
)
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.durable import write_atomic

_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Preimage:
    """Headers and metadata blocks of a file at one checkpoint, and which of its blocks were in use."""

    raw: bytes
    use: BlockUse
    blocks: dict[int, bytes]

    @property
    def headers(self) -> Headers:
        return parse_headers(self.raw)

    def encode(self) -> bytes:
        head = {
            "block_count": self.use.block_count,
            "free": sorted(self.use.free),
            "metadata": sorted(self.use.metadata),
            "blocks": [[block, len(data)] for block, data in self.blocks.items()],
        }
        text = json.dumps(head).encode()
        body = b"".join([len(text).to_bytes(8, "little"), text, self.raw, *self.blocks.values()])
        return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body

    @classmethod
    def decode(cls, data: bytes) -> Preimage | None:
        """The image; None when it is not whole."""
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
            return None
        at = 8 + int.from_bytes(body[:8], "little")
        head = json.loads(body[8:at])
        raw, at = body[at : at + HEADERS_BYTES], at + HEADERS_BYTES
        blocks = {}
        for block, length in head["blocks"]:
            blocks[block], at = body[at : at + length], at + length
        use = BlockUse(head["block_count"], frozenset(head["free"]), frozenset(head["metadata"]))
        return cls(raw, use, blocks)

    @classmethod
    def read(cls, path: Path) -> Preimage | None:
        """The image at that path; None when there is none that is whole."""
        try:
            return cls.decode(path.read_bytes())
        except FileNotFoundError:
            return None


def keep_preimage(file: Path, place: Path, snapshots: Path) -> None:
    """Keep, durably, what the next CHECKPOINT rewrites in place; nothing where the newest snapshot is the file as it is.

    Never raises for what is wrong with the file: whoever opens it says that.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        headers = read_headers(descriptor)
        if headers.raw in (headers_of_newest(snapshots, file.name), _headers_of(place)):
            return
        use = read_block_use(descriptor, headers, block_checksum)
        if use is not None:
            size = headers.active.block_size_bytes
            blocks = {block: os.pread(descriptor, size, block_offset(block, size)) for block in sorted(use.metadata)}
            write_atomic(place, Preimage(headers.raw, use, blocks).encode())
    except (BlockingIOError, PermissionError, PondkeeperError):
        return  # Why: somebody has it open, amid a checkpoint perhaps, or it is damaged; then nobody can open it anyway.
    finally:
        os.close(descriptor)


def headers_of_newest(snapshots: Path, file_name: str) -> bytes | None:
    """The headers of the newest snapshot; None where there is none."""
    with suppress(OSError):
        newest = max((name for name in os.listdir(snapshots) if name.isdecimal()), default=None)
        if newest is not None:
            # Why not waiting: who has it by a lease is the copier, and such a snapshot is not the newest any more.
            descriptor = os.open(snapshots / newest / file_name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return os.pread(descriptor, HEADERS_BYTES, 0)
            finally:
                os.close(descriptor)
    return None


def _headers_of(place: Path) -> bytes | None:
    image = Preimage.read(place)
    return image.raw if image is not None else None

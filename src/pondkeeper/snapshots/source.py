"""The database file as the copier sees it: read as bytes, never written, never opened by DuckDB in this process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import (
    HEADERS_BYTES,
    BlockUse,
    Headers,
    block_offset,
    is_whole,
    read_block_use,
    read_headers,
)
from pondkeeper.errors import DatabaseReadOnly, DatabaseUnavailable, DatabaseUnreadable
from pondkeeper.snapshots.checksums import ChecksumMap

_ATTEMPTS = 4
_BETWEEN_ATTEMPTS_S = 0.001


@dataclass(frozen=True)
class Observation:
    """The source at one of its checkpoints.

    `use` is None where the format is not one we know. `checksums` has 8 bytes per block; `metadata` whole blocks.
    """

    inode: tuple[int, int]
    headers: Headers
    use: BlockUse | None
    checksums: bytes
    metadata: dict[int, bytes]

    @property
    def block_count(self) -> int:
        return self.headers.active.block_count

    @property
    def block_size_bytes(self) -> int:
        return self.headers.active.block_size_bytes

    @property
    def used(self) -> list[int]:
        """The blocks in use, ascending; empty where that is not known."""
        return [] if self.use is None else [b for b in range(self.block_count) if b not in self.use.free]


class Source:
    """One database file, opened by `open()` for the time of a publish; only the map of its checksums stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.verify = True
        self._descriptor = -1
        self._checksums = ChecksumMap()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DatabaseUnavailable("The database file does not exist.", private=str(self.path)) from error
        except PermissionError as error:
            raise DatabaseReadOnly("The database file may not be read.", private=str(self.path)) from error
        try:
            yield
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def observe(self) -> Observation:
        """Read headers, use, metadata and checksums; correct while no checkpoint runs (`is_still` tells afterwards)."""
        headers = read_headers(self._descriptor)
        use = read_block_use(self._descriptor, headers, block_checksum)
        status = os.fstat(self._descriptor)
        inode = (status.st_dev, status.st_ino)
        if use is None:
            return Observation(inode, headers, None, b"", {})
        size = headers.active.block_size_bytes
        metadata = {block: self._read(block, size) for block in sorted(use.metadata)}
        checksums = self._checksums.read(self._descriptor, headers.active.block_count, size)
        return Observation(inode, headers, use, checksums, metadata)

    def is_still(self, observation: Observation) -> bool:
        """Whether the headers are the ones observed: no checkpoint has ended since."""
        return os.pread(self._descriptor, HEADERS_BYTES, 0) == observation.headers.raw

    def read_block(self, block: int, size_bytes: int) -> bytes:
        """A block whose checksum is right. Raises DatabaseUnreadable when it stays wrong: the block is damaged.

        Read and checked in one buffer, so that nothing can change between the check and the copy.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_BETWEEN_ATTEMPTS_S)
            data = self._read(block, size_bytes)
            if not self.verify or (len(data) == size_bytes and is_whole(data, block_checksum)):
                return data
        raise DatabaseUnreadable(
            "A block of the database file is damaged: its checksum does not match.",
            private=f"{self.path}: block {block} at offset {block_offset(block, size_bytes)}",
            block=block,
        )

    def peek_block(self, block: int, size_bytes: int) -> bytes:
        """A block as it is, unchecked: to compare, not to copy."""
        return self._read(block, size_bytes)

    def read_bytes(self, length: int, offset: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def _read(self, block: int, size_bytes: int) -> bytes:
        return os.pread(self._descriptor, size_bytes, block_offset(block, size_bytes))

    def forget(self) -> None:
        """Drop the maps of the file."""
        self._checksums.forget()

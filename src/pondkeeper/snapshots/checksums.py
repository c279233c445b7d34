"""All block checksums of a large file in milliseconds: 8 bytes of every block, through maps that stay."""

from __future__ import annotations

import mmap
import os

from pondkeeper.engine.fileformat import CHECKSUM_BYTES, HEADERS_BYTES, block_offset

_PIECE_BYTES = 64 << 20


class ChecksumMap:
    """Maps of one file, 64 MiB each, so that only the last is made anew when the file grows.

    What costs is the first touch of a page; with the page tables there, 40,000 checksums take 1 ms instead of 130.
    """

    def __init__(self) -> None:
        self._file: tuple[int, int] = (0, 0)
        self._pieces: list[mmap.mmap] = []

    def read(self, descriptor: int, block_count: int, block_size_bytes: int) -> bytes:
        """The first 8 bytes of each block that lies wholly in the file; `block_count` blocks at most."""
        status = os.fstat(descriptor)
        whole = min(block_count, (status.st_size - HEADERS_BYTES) // block_size_bytes)
        try:
            self._cover(descriptor, status)
        except (OSError, ValueError):  # Why: no address space, or no mmap on this file system: slower, and the same.
            self.forget()
            offsets = (block_offset(block, block_size_bytes) for block in range(whole))
            return b"".join(os.pread(descriptor, CHECKSUM_BYTES, offset) for offset in offsets)
        return b"".join(self._words(whole, block_size_bytes))

    def forget(self) -> None:
        """Drop the maps, and with them our hold on a file that may have been replaced."""
        for piece in self._pieces:
            piece.close()
        self._pieces, self._file = [], (0, 0)

    def _cover(self, descriptor: int, status: os.stat_result) -> None:
        """Trap: touching a mapped page beyond the end of the file is SIGBUS, so pieces never reach beyond it."""
        if self._file != (status.st_dev, status.st_ino):
            self.forget()
            self._file = (status.st_dev, status.st_ino)
        starts = range(0, status.st_size, _PIECE_BYTES)
        lengths = [min(_PIECE_BYTES, status.st_size - start) // 8 * 8 for start in starts]
        same = 0
        while same < len(self._pieces) and same < len(lengths) and len(self._pieces[same]) == lengths[same]:
            same += 1
        for piece in self._pieces[same:]:
            piece.close()
        del self._pieces[same:]
        for start, length in list(zip(starts, lengths, strict=True))[same:]:
            piece = mmap.mmap(descriptor, length, prot=mmap.PROT_READ, offset=start)
            piece.madvise(mmap.MADV_RANDOM)
            self._pieces.append(piece)

    def _words(self, whole: int, block_size_bytes: int) -> list[bytes]:
        per_piece = _PIECE_BYTES // block_size_bytes
        found = []
        for index, piece in enumerate(self._pieces):
            count = min(per_piece, whole - index * per_piece)
            if count > 0:
                end = HEADERS_BYTES + (count - 1) * block_size_bytes + CHECKSUM_BYTES
                every = slice(HEADERS_BYTES // 8, end // 8, block_size_bytes // 8)
                with memoryview(piece) as octets, octets.cast("Q") as words, words[every] as checksums:
                    found.append(checksums.tobytes())
        return found

"""A snapshot copied into a file of its own: each block is checked in the buffer that it is written from."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import Bytes, block_offset, is_whole, read_block_use, read_headers
from pondkeeper.errors import DatabaseUnavailable, DatabaseUnreadable

Progress = Callable[[int, int], None]
"""Told of the bytes done and of all that are to be done, by one thread."""

_THREADS: Final = 2  # Why no more: two are faster than most disks
_PIECE_BYTES: Final = 512 << 10  # Why no more: what was read is still in the processor's cache when it is checked and written
_TASK_BYTES: Final = 16 << 20


def take_out(source: int, target: int, progress: Progress) -> None:
    """Copy the snapshot open at `source` into the empty file open at `target`. Nothing is flushed.

    What the database does not use stays a hole. Raises DatabaseUnreadable for a block that is damaged, before it is
    written, and DatabaseUnavailable for a format in which blocks cannot be told.
    """
    headers = read_headers(source)
    use = read_block_use(source, headers, block_checksum)
    if use is None:
        raise DatabaseUnavailable("This storage version or block size is not known, so it cannot be verified.")
    size_bytes = headers.active.block_size_bytes
    used = [block for block in range(use.block_count) if use.is_used(block)]
    os.ftruncate(target, headers.active.size_bytes)
    _write(target, headers.raw, 0)

    checking, writing = threading.Lock(), threading.Lock()

    def copy(blocks: Sequence[int]) -> int:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        for run in _runs(blocks, _PIECE_BYTES // size_bytes):
            piece = buffer[: len(run) * size_bytes]
            _read(source, piece, block_offset(run.start, size_bytes))
            # Why the locks: so one reads or writes while the other checks. Two that check keep waiting for each other's GIL
            # (a third slower, measured), and two that write spin in the kernel, which lets one write into a file at a time.
            with checking:
                _check(piece, run)
            with writing:
                _write(target, piece, block_offset(run.start, size_bytes))
        return len(blocks) * size_bytes

    done_bytes = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            for copied_bytes in threads.map(copy, _tasks(used, _TASK_BYTES // size_bytes)):
                done_bytes += copied_bytes
                progress(done_bytes, len(used) * size_bytes)
        except BaseException:  # Why: whatever ended it, what is still queued must not be copied first.
            threads.shutdown(wait=True, cancel_futures=True)
            raise


def _read(source: int, piece: memoryview, offset: int) -> None:
    if os.preadv(source, [piece], offset) < len(piece):
        raise DatabaseUnreadable("The snapshot is shorter than it was.")


def _check(piece: memoryview, run: range) -> None:
    size_bytes = len(piece) // len(run)
    for number, block in enumerate(run):
        if not is_whole(piece[number * size_bytes : (number + 1) * size_bytes], block_checksum):
            raise DatabaseUnreadable("A block of the snapshot is damaged: its checksum does not match.", block=block)


def _tasks(blocks: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    return (blocks[at : at + most] for at in range(0, len(blocks), most))


def _runs(blocks: Sequence[int], most: int) -> Iterator[range]:
    """Blocks (ascending) as runs of neighbours, at most so many in each."""
    first = 0
    for at in range(1, len(blocks) + 1):
        if at == len(blocks) or at - first == most or blocks[at] != blocks[at - 1] + 1:
            yield range(blocks[first], blocks[at - 1] + 1)
            first = at


def _write(descriptor: int, data: Bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

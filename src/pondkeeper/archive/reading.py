"""A file out of the archive: blocks fetched by several threads at once, each proved before it is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.archive.names import block_name
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.protocol import Fetching
from pondkeeper.archive.tree import BLOCK_BYTES, Tree, block_span
from pondkeeper.engine.fileformat import Bytes
from pondkeeper.errors import ArchiveDamaged, DiskFull
from pondkeeper.files.durable import PRIVATE_FILE, sync_folder
from pondkeeper.files.flushing import flushing

Progress = Callable[[int, int], None]
"""Told of the blocks done and of all that are to be done."""

PARTIAL_SUFFIX = ".partial"
_MOST_PER_TASK = 8


@dataclass(frozen=True)
class Assembled:
    """`blocks_kept` were there already, from an attempt that was interrupted, or from an older version."""

    blocks_fetched: int
    blocks_kept: int
    bytes_fetched: int


def assemble(store: Fetching, sealer: Sealer, tree: Tree, target: Path, progress: Progress | None = None) -> Assembled:
    """Make the file of a tree at `target`, which must not be there: whole and durable, or not at all.

    An attempt that was interrupted leaves `target` + `.partial`; the next one proves what is there and fetches the rest.
    Raises ArchiveDamaged, ArchiveUnavailable, DiskFull.
    """
    if target.exists():
        raise FileExistsError(target)
    with disk_errors():
        return _assemble(store, sealer, tree, target, progress)


def _assemble(store: Fetching, sealer: Sealer, tree: Tree, target: Path, progress: Progress | None) -> Assembled:
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        have = _present(descriptor, tree, sealer)
        os.ftruncate(descriptor, tree.size_bytes)
        missing = [block for block in range(len(tree)) if block not in have]
        with flushing(descriptor) as written:

            def told(done: int, of: int) -> None:
                written(done * BLOCK_BYTES)
                if progress is not None:
                    progress(done, of)

            fetched = fetch_blocks(store, sealer, tree, missing, descriptor, told)
    finally:
        os.close(descriptor)
    os.link(partial, target)  # Why not rename: it would replace a file that somebody has made there meanwhile.
    partial.unlink()
    sync_folder(target.parent)
    return Assembled(len(missing), len(have), fetched)


def fetch_blocks(
    store: Fetching,
    sealer: Sealer,
    tree: Tree,
    blocks: Iterable[int],
    descriptor: int,
    progress: Progress | None = None,
) -> int:
    """Write these blocks of the tree into an open file, each proved first; the bytes fetched. Nothing is flushed.

    For a file that is brought from one version to another: `tree.differing(its_tree)`, then set its length.
    """
    wanted = list(blocks)
    per_task = max(1, min(_MOST_PER_TASK, len(wanted) // (4 * store.at_once)))
    tasks = [wanted[at : at + per_task] for at in range(0, len(wanted), per_task)]

    def fetch(some: list[int]) -> tuple[int, int]:
        return len(some), sum(_fetch(store, sealer, tree, block, descriptor) for block in some)

    done = total = 0
    with ThreadPoolExecutor(store.at_once) as threads:
        try:
            for count, size_bytes in threads.map(fetch, tasks):
                done, total = done + count, total + size_bytes
                if progress is not None:
                    progress(done, len(wanted))
        except BaseException:  # Why: whatever ended it, what is still queued must not be fetched first.
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return total


def _fetch(store: Fetching, sealer: Sealer, tree: Tree, block: int, descriptor: int) -> int:
    digest = tree.digest(block)
    sealed = store.get(block_name(digest))
    contents = sealer.opened(sealed, digest)
    start, length = block_span(block, tree.size_bytes)
    if len(contents) != length:
        raise ArchiveDamaged(object=digest.hex())
    _write(descriptor, contents, start)
    return len(sealed)


def _present(descriptor: int, tree: Tree, sealer: Sealer) -> set[int]:
    """The blocks that an earlier attempt has left in the file, right to the last bit."""
    there = os.fstat(descriptor).st_size
    found: set[int] = set()
    for block in range(len(tree)):
        start, length = block_span(block, tree.size_bytes)
        if start + length > there:
            break
        if sealer.digest(os.pread(descriptor, length, start)) == tree.digest(block):
            found.add(block)
    return found


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn a disk that is full into our error."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(
                "The disk is full: the file could not be made.",
                remedy="Free some space and repeat it: what is there of it is used.",
                private=str(error),
            ) from error
        raise


def _write(descriptor: int, data: Bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

"""One snapshot into the archive: hash what may have changed, put blocks and pages that are missing, then the manifest.

Blocks and pages are durable before the manifest begins, so a crash leaves objects that nobody refers to, and never a
manifest whose blocks are not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pondkeeper.archive.history import Archived, versions
from pondkeeper.archive.manifest import Manifest, format_time, manifest_name
from pondkeeper.archive.names import block_name, page_name
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.protocol import Putting
from pondkeeper.archive.tree import BLOCK_BYTES, Tree, block_count, block_span, blocks_within
from pondkeeper.engine.fileformat import (
    HEADERS_BYTES,
    BlockUse,
    Checksum,
    Headers,
    block_offset,
    checksum,
    is_whole,
    parse_headers,
    read_block_use,
)
from pondkeeper.errors import ArchiveConflict, DatabaseUnreadable, ObjectMissing

Ranges = Sequence[tuple[int, int]]
"""Blocks of the database (not of the archive): each the first block and the one after the last."""

_ZEROS = bytes(BLOCK_BYTES)


@dataclass(frozen=True)
class About:
    """What the archive cannot read from the snapshot's file: whose version it is, and when it was published."""

    database: str
    version: int
    created_at: datetime
    lineage: str


@dataclass(frozen=True)
class Written:
    """What one version cost. `archived` is what the next one is written as a difference to."""

    archived: Archived
    blocks_hashed: int
    blocks_put: int
    block_bytes: int
    bytes_put: int


@dataclass
class _Cost:
    """`block_bytes`: contents of the blocks that were put; `bytes_put`: what that and the pages took in the store."""

    blocks_put: int = 0
    block_bytes: int = 0
    bytes_put: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)

    def count(self, block: int, digest: bytes, put_bytes: int, content: _Content) -> None:
        self.digests[block] = digest
        if put_bytes:
            self.blocks_put += 1
            self.block_bytes += block_span(block, content.size_bytes)[1]
            self.bytes_put += put_bytes


def write_version(
    archive: Archive,
    file: Path,
    about: About,
    previous: Archived | None = None,
    changed: Ranges | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    checksum_of: Checksum = checksum,
) -> Written:
    """Put the snapshot at `file` into the archive; nobody may change it meanwhile (an open descriptor keeps the copier off).

    `changed`: the blocks of the database that may differ between `previous` and this version; None when that is not
    known. `check` is called between blocks and may raise. `checksum_of` is `engine.checksum.block_checksum` in processes
    that may load pyarrow: 50 times as fast. Writing a version that is there already changes nothing. Raises
    ArchiveConflict when another one has its number, DatabaseUnreadable when a block of the snapshot is damaged.
    """
    with archive.store.writing() as guard, file.open("rb", buffering=0) as snapshot:
        _refuse_another(archive, about, previous)
        if previous is not None and not archive.store.has(previous.manifest.name):
            previous, changed = None, None  # Why: pruned, and its blocks perhaps as well.
        content = _Content(snapshot.fileno(), archive.sealer, checksum_of)
        cost = _Cost()
        with archive.store.putting() as putting:
            wanted = content.to_hash(previous, changed)
            at_once = min(archive.store.at_once, len(wanted))
            for block, digest, put_bytes in _put_blocks(content, putting, previous, wanted, at_once, check):
                cost.count(block, digest, put_bytes, content)
            tree = (previous.tree if previous else Tree(0, b"")).replaced(
                content.size_bytes, content.unused_digests() | cost.digests
            )
            pages = _put_pages(archive.sealer, putting, tree, previous, cost)
        manifest = _manifest(about, content, pages)
        guard.check()
        _put_manifest(archive, manifest)
    return Written(Archived(manifest, tree), len(cost.digests), cost.blocks_put, cost.block_bytes, cost.bytes_put)


def _refuse_another(archive: Archive, about: About, previous: Archived | None) -> None:
    """Raises ArchiveConflict when the number is another version's. Listing all is for the first write of a process only."""
    name = manifest_name(about.database, about.version, about.created_at)
    if previous is None:
        taken = [found.name for found in versions(archive.store, about.database) if found.version == about.version]
    else:
        taken = [previous.manifest.name] if about.version <= previous.manifest.version else []
    if taken and taken != [name]:
        raise ArchiveConflict(database=about.database, version=about.version)


class _Content:
    """A snapshot's file as blocks of the archive. Those in which the database uses nothing count as zeros: what lies in
    them differs from copy to copy and is never read."""

    def __init__(self, descriptor: int, sealer: Sealer, checksum_of: Checksum) -> None:
        self.descriptor = descriptor
        self.sealer = sealer
        self.size_bytes = os.fstat(descriptor).st_size
        self.headers: Headers = parse_headers(os.pread(descriptor, HEADERS_BYTES, 0))
        self._checksum_of = checksum_of
        self._use = read_block_use(descriptor, self.headers, checksum_of)
        self._own_bytes = self.headers.active.block_size_bytes
        self.unused = self._unused()

    def to_hash(self, previous: Archived | None, changed: Ranges | None) -> list[int]:
        """The blocks whose digest is to be found out, ascending."""
        every = range(block_count(self.size_bytes))
        if previous is None or changed is None:
            return [block for block in every if block not in self.unused]
        wanted = {0, *range(len(previous.tree), len(every))}
        size = self._own_bytes
        for first, end in changed:
            wanted.update(blocks_within(block_offset(first, size), block_offset(end, size)))
        if previous.tree.size_bytes != self.size_bytes:
            wanted.update((len(previous.tree) - 1, len(every) - 1))
        wanted.update(previous.tree.blocks_with(self.sealer.digest(_ZEROS)))
        return sorted(wanted.intersection(every) - self.unused)

    def read(self, block: int) -> bytes:
        start, length = block_span(block, self.size_bytes)
        data = os.pread(self.descriptor, length, start)
        if len(data) < length:
            raise DatabaseUnreadable("The snapshot is shorter than it was.")
        if block and self._use is not None:
            self._check(data, (start - HEADERS_BYTES) // self._own_bytes, self._use)
        return data

    def _check(self, data: bytes, first: int, use: BlockUse) -> None:
        """Each block of the database within: nothing damaged gets a hash that says it is right."""
        view = memoryview(data)
        for at in range(0, len(data) - self._own_bytes + 1, self._own_bytes):
            own = first + at // self._own_bytes
            if use.is_used(own) and not is_whole(view[at : at + self._own_bytes], self._checksum_of):
                raise DatabaseUnreadable("A block of the snapshot is damaged: its checksum does not match.", block=own)

    def unused_digests(self) -> dict[int, bytes]:
        zeros = self.sealer.digest(_ZEROS)
        return dict.fromkeys(self.unused, zeros)

    def _unused(self) -> frozenset[int]:
        if self._use is None:
            return frozenset()
        per_block = BLOCK_BYTES // self._own_bytes
        counts: dict[int, int] = {}
        for block in self._use.free:
            number = 1 + block // per_block
            counts[number] = counts.get(number, 0) + 1
        whole = 1 + (self.size_bytes - HEADERS_BYTES) // BLOCK_BYTES
        return frozenset(block for block, count in counts.items() if count == per_block and block < whole)


def _put_blocks(
    content: _Content,
    putting: Putting,
    previous: Archived | None,
    wanted: list[int],
    at_once: int,
    check: Callable[[], None],
) -> Iterator[tuple[int, bytes, int]]:
    """Each wanted block with its digest and the bytes that were put for it."""

    def put(block: int) -> tuple[int, bytes, int]:
        check()
        data = content.read(block)
        digest = content.sealer.digest(data)
        if previous is not None and block < len(previous.tree) and previous.tree.digest(block) == digest:
            return block, digest, 0
        return block, digest, putting.put_missing(block_name(digest), _sealing(content.sealer, data, digest))

    if content.unused:
        digest = content.sealer.digest(_ZEROS)
        putting.put_missing(block_name(digest), _sealing(content.sealer, _ZEROS, digest))
    with ThreadPoolExecutor(at_once) as threads:
        yield from threads.map(put, wanted)


def _put_pages(
    sealer: Sealer, putting: Putting, tree: Tree, previous: Archived | None, cost: _Cost
) -> list[bytes]:
    """The digests of the tree's pages; those that the previous version has are there."""
    known = set(previous.manifest.pages) if previous else set()
    found = []
    for page in tree.pages():
        digest = sealer.digest(page)
        if digest.hex() not in known:
            cost.bytes_put += putting.put_missing(page_name(digest), _sealing(sealer, page, digest))
        found.append(digest)
    return found


def _sealing(sealer: Sealer, data: bytes, digest: bytes) -> Callable[[], bytes]:
    return lambda: sealer.seal(data, digest)


def _manifest(about: About, content: _Content, pages: list[bytes]) -> Manifest:
    headers = content.headers
    return Manifest(
        database=about.database,
        version=about.version,
        created_at=format_time(about.created_at),
        lineage=about.lineage,
        size_bytes=content.size_bytes,
        pages=tuple(page.hex() for page in pages),
        iteration=headers.active.iteration,
        identity=headers.identity.hex(),
        storage_version=headers.storage_version,
        library_version=headers.library_version,
    )


def _put_manifest(archive: Archive, manifest: Manifest) -> None:
    data = manifest.encode(archive.sealer)
    try:
        there = archive.store.get(manifest.name)
    except ObjectMissing:
        archive.store.put(manifest.name, data)
        return
    if there != data:
        raise ArchiveConflict(database=manifest.database, version=manifest.version)

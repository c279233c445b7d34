"""Remove what retention lets go, and what nobody refers to, beside writers that go on.

First the manifests of versions that go, durably; then every remaining version is read, and what none of them refers to
is removed, some at a time. Before each removal nobody writes, and the versions that were written since are read as well:
so a writer that found a block there has either put its manifest, which we see, or looks again and finds the block gone.
Ended at any moment, it leaves objects that nobody refers to, for the next time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from pondkeeper.archive.history import databases, read_manifest, read_page, versions
from pondkeeper.archive.manifest import ArchivedVersion
from pondkeeper.archive.names import BLOCKS, PAGES
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.retention import Retention, kept
from pondkeeper.archive.sealing import DIGEST_BYTES
from pondkeeper.archive.store.protocol import Stored
from pondkeeper.errors import VersionNotArchived

_AT_ONCE = 1000
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Pruned:
    """What went, and what stayed. `bytes_freed` is what the objects took in the store."""

    versions_removed: int
    versions_kept: int
    objects_removed: int
    bytes_freed: int


def to_remove(archive: Archive, retention: Retention, now: datetime | None = None) -> list[ArchivedVersion]:
    """The versions of all databases that retention lets go, oldest first: what `prune` would remove."""
    now = now or datetime.now(UTC)
    return [gone for name in databases(archive.store) for gone in _gone(archive, name, retention, now)]


def prune(
    archive: Archive,
    retention: Retention,
    *,
    now: datetime | None = None,
    check: Callable[[], None] = lambda: None,
    timeout_s: float = 60.0,
) -> Pruned:
    """Remove what may go. `check` is called every now and then, while nothing is held, and may raise.

    Raises ArchiveBusy when writers do not end within `timeout_s`, and ArchiveDamaged when a version that stays cannot be
    read: then nobody knows which blocks it needs (`remove_versions` lets go of such a one).
    """
    removed = to_remove(archive, retention, now)
    remove_versions(archive, removed, timeout_s)
    check()
    needed = _Needed(archive)
    needed.learn(check)
    objects = freed = 0
    for some in _some(_unneeded(archive, needed)):
        check()
        with archive.store.removing(timeout_s) as guard:
            needed.learn(guard.check)
            gone = [stored for stored in some if _digest_of(stored) not in needed.digests]
            guard.check()
            archive.store.delete([stored.name for stored in gone])
        objects, freed = objects + len(gone), freed + sum(stored.size_bytes for stored in gone)
    return Pruned(len(removed), len(needed.seen), objects, freed)


def remove_versions(archive: Archive, gone: Iterable[ArchivedVersion], timeout_s: float = 60.0) -> None:
    """Remove these versions' manifests, for good; their blocks go with the next `prune`."""
    for some in _some(iter(gone)):
        with archive.store.removing(timeout_s):
            archive.store.delete([version.name for version in some])


class _Needed:
    """The digests of all objects that a version refers to; it grows by the versions that were written since."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.digests: set[bytes] = set()
        self.seen: set[ArchivedVersion] = set()

    def learn(self, check: Callable[[], None]) -> None:
        """Read every version that we have not read yet."""
        store = self._archive.store
        fresh = [found for name in databases(store) for found in versions(store, name) if found not in self.seen]
        if len(fresh) <= 1:
            for found in fresh:
                self._read(found)
            return
        with ThreadPoolExecutor(store.at_once) as threads:
            try:
                for _ in threads.map(self._read, fresh):
                    check()
            except BaseException:  # Why: whatever ended it, what is still queued must not be read first.
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    def _read(self, version: ArchivedVersion) -> None:
        """Two threads may read the same page; what they add is the same."""
        try:
            manifest = read_manifest(self._archive.store, self._archive.sealer, version)
        except VersionNotArchived:  # Why: somebody else has removed it since it was listed.
            return
        for page in map(bytes.fromhex, manifest.pages):
            if page not in self.digests:
                digests = read_page(self._archive.store, self._archive.sealer, page)
                self.digests.update(digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
                self.digests.add(page)  # Why last: another thread leaves the page out once it is known.
        self.seen.add(version)


def _gone(archive: Archive, name: str, retention: Retention, now: datetime) -> list[ArchivedVersion]:
    found = versions(archive.store, name)
    return sorted(set(found) - kept(found, now, retention))


def _unneeded(archive: Archive, needed: _Needed) -> Iterator[Stored]:
    for prefix in (PAGES, BLOCKS):
        for stored in archive.store.stored(prefix):
            digest = _digest_of(stored)
            if digest is not None and digest not in needed.digests:
                yield stored


def _digest_of(stored: Stored) -> bytes | None:
    """The digest in an object's name; None for what is none of ours, which stays."""
    text = stored.name.rsplit("/", 1)[-1]
    return bytes.fromhex(text) if _DIGEST.match(text) else None


def _some(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    while found := list(islice(items, _AT_ONCE)):
        yield found

"""The keeper's side of the feeders: which versions are given out, to whom, and that each block is read once for all."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from pondkeeper.archive.desk import ArchiverDesk
from pondkeeper.archive.lineage import lineage_of
from pondkeeper.archive.manifest import Manifest, format_time, parse_time
from pondkeeper.archive.replica.feeding import FeederProcess
from pondkeeper.archive.sealing import DIGEST_BYTES
from pondkeeper.archive.tree import PAGE_BLOCKS
from pondkeeper.databases.archiving import Publication
from pondkeeper.databases.events import EventHub
from pondkeeper.errors import DatabaseNotFound, DatabaseUnavailable, SnapshotNotFound
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.changes import Ranges, union
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import Template

CACHE_BYTES: Final = 64 * 1024 * 1024
MAX_BLOCKS_ASKED: Final = 32
HOLD_S: Final = 30.0
"""How long a version is kept for a replica that has asked for it and then for nothing more."""
MOST_HELD: Final = 4
LOOK_S: Final = 0.25
_PAGE_BYTES: Final = PAGE_BLOCKS * DIGEST_BYTES
_ATTEMPTS: Final = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """A version that can be fetched: its manifest as it is archived too, and the pages of its tree by their digests."""

    manifest: Manifest
    pages: dict[str, bytes]


@dataclass(frozen=True)
class Asked:
    """What a replica says of itself: its name for itself, the newest version that it has and of which lineage."""

    replica: str
    after: int = 0
    lineage: str = ""


@dataclass
class Counters:
    """What feeding has cost since the keeper started: blocks hashed and read once for all, blocks and bytes given out."""

    blocks_hashed: int = 0
    blocks_read: int = 0
    blocks_given: int = 0
    bytes_given: int = 0


class Feed:
    """What replicas of this keeper's databases fetch."""

    def __init__(self) -> None:
        self._outlets: dict[str, Outlet] = {}
        self._cache = BlockCache(CACHE_BYTES)

    def attach(self, template: Template) -> None:
        """The keeper's children are forked there."""
        self._template = template

    async def start(self, databases: list[DatabasePaths]) -> None:
        """These databases are served from now on."""
        for paths in databases:
            if paths.name not in self._outlets:
                self._outlets[paths.name] = Outlet(paths, self._template, self._cache)

    def published(self, name: str, publication: Publication) -> None:
        """The newest version of a database is this one now."""
        self._outlets[name].published(publication)

    async def stop(self) -> None:
        """End the feeders."""
        await asyncio.gather(*(outlet.stop() for outlet in self._outlets.values()))

    def of(self, name: str) -> Outlet:
        """What is given out of a database. Raises DatabaseNotFound."""
        try:
            return self._outlets[name]
        except KeyError:
            raise DatabaseNotFound(f"There is no database {name!r} here.") from None


class BesideArchive:
    """An `Archiving` that tells the feed what it tells the archive."""

    def __init__(self, archive: ArchiverDesk, feed: Feed) -> None:
        self._archive = archive
        self._feed = feed

    def attach(self, template: Template, events: EventHub) -> BesideArchive:
        """Use these from now on."""
        self._feed.attach(template)
        self._archive.attach(template, events)
        return self

    async def start(self, databases: list[DatabasePaths]) -> None:
        await self._feed.start(databases)
        await self._archive.start(databases)

    def published(self, name: str, publication: Publication) -> None:
        self._feed.published(name, publication)
        self._archive.published(name, publication)

    async def first_version(self, name: str) -> int:
        return await self._archive.first_version(name)

    def status(self, name: str) -> dict[str, Any] | None:
        return self._archive.status(name)

    async def stop(self, grace_s: float) -> None:
        await self._feed.stop()
        await self._archive.stop(grace_s)


class BlockCache:
    """Sealed blocks by their digests, those asked for last: ten replicas cost one read of each block."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._blocks: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, digest: str) -> bytes | None:
        found = self._blocks.get(digest)
        if found is not None:
            self._blocks.move_to_end(digest)
        return found

    def put(self, digest: str, sealed: bytes) -> None:
        if digest in self._blocks:
            return
        self._blocks[digest] = sealed
        self._bytes += len(sealed)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._blocks.popitem(last=False)[1])


@dataclass
class _Replica:
    """One replica as it was seen last. `holds`: the version that it is fetching."""

    seen_at: float
    has: int = 0
    holds: int | None = None


@dataclass
class _Changes:
    """The blocks that may have changed from version `since` to `until`; `blocks` is None when any may."""

    since: int | None = None
    until: int | None = None
    blocks: Ranges | None = field(default_factory=list)

    def note(self, publication: Publication) -> None:
        follows = self.until is not None and publication.changed_since == self.until
        self.blocks = union(self.blocks, publication.changed) if follows else None
        self.until = publication.version


class Outlet:
    """What is given out of one database."""

    def __init__(self, paths: DatabasePaths, template: Template, cache: BlockCache) -> None:
        self.counters = Counters()
        self._paths = paths
        self._feeder = FeederProcess(template, Fence(read=(str(paths.snapshots),)))
        self._cache = cache
        self._newest: Publication | None = None
        self._is_newer = asyncio.Event()
        self._changes = _Changes()
        self._offers: OrderedDict[int, Offer] = OrderedDict()
        self._replicas: dict[str, _Replica] = {}
        self._lock = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()

    def published(self, publication: Publication) -> None:
        self._newest = publication
        self._changes.note(publication)
        self._is_newer.set()
        self._is_newer = asyncio.Event()

    def describe(self) -> dict[str, Any]:
        """The replicas that asked lately, what they have, and what they have cost."""
        now = time.monotonic()
        seen = [
            {"replica": name, "version": replica.has, "seen_s_ago": round(now - replica.seen_at, 3)}
            for name, replica in self._replicas.items()
            if now - replica.seen_at < HOLD_S
        ]
        return {"replicas": seen, **asdict(self.counters)}

    async def offer(self, asked: Asked, wait_s: float, is_over: Callable[[], bool] = lambda: False) -> Offer | None:
        """The newest version, if the replica lacks it, or as soon as one is published; None when none was in that time.

        The version is kept for the replica until it asks for the next. `is_over` ends the waiting. Raises PondkeeperError.
        """
        replica = self._seen(asked.replica)
        replica.has, replica.holds = asked.after, None
        lineage = (await asyncio.to_thread(lineage_of, self._paths)).id
        deadline = time.monotonic() + wait_s
        while self._newest is None or (self._newest.version <= asked.after and lineage == asked.lineage):
            is_newer, left_s = self._is_newer, deadline - time.monotonic()
            if left_s <= 0 or is_over():
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await is_newer.wait()
        offer = await self._whole(self._offered())
        replica = self._seen(asked.replica)
        replica.holds = offer.manifest.version
        return offer

    def pages(self, replica: str, digests: Sequence[str]) -> list[bytes | None]:
        """Pages of the trees that are given out now; None for one that is of none of them."""
        self._seen(replica)
        return [
            next((offer.pages[digest] for offer in self._offers.values() if digest in offer.pages), None)
            for digest in digests
        ]

    async def blocks(self, replica: str, digests: Sequence[str]) -> AsyncIterator[bytes | None]:
        """Blocks of the versions that are given out now, sealed, in this order; None for one that no version has any more."""
        self._seen(replica)
        found = {digest: sealed for digest in digests if (sealed := self._cache.get(digest)) is not None}
        if len(found) < len(set(digests)):
            found |= await self._whole(self._read([digest for digest in dict.fromkeys(digests) if digest not in found]))
        for digest in digests:
            sealed = found.get(digest)
            if sealed is not None:
                self.counters.blocks_given += 1
                self.counters.bytes_given += len(sealed)
            yield sealed

    async def stop(self) -> None:
        for task in list(self._working):
            task.cancel()
        if self._working:
            await asyncio.wait(set(self._working))
        await self._feeder.stop()

    async def _read(self, digests: list[str]) -> dict[str, bytes]:
        """Blocks from a snapshot. Each is read once for all replicas: whoever comes second finds them in the cache."""
        async with self._lock:
            found = {digest: sealed for digest in digests if (sealed := self._cache.get(digest)) is not None}
            missing = [digest for digest in digests if digest not in found]
            if missing:
                read = await self._feeder.blocks(missing, self._held())
                self.counters.blocks_read += len(read)
                for digest, sealed in read.items():
                    self._cache.put(digest, sealed)
                found |= read
        return found

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Its outcome. Shielded: a feeder that is asked by a replica that goes away would be left with half an answer."""
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # Why: else asyncio complains when nobody is left to be told

    def _seen(self, name: str) -> _Replica:
        now = time.monotonic()
        for other in [other for other, replica in self._replicas.items() if now - replica.seen_at > 10 * HOLD_S]:
            del self._replicas[other]
        replica = self._replicas.setdefault(name, _Replica(now))
        replica.seen_at = now
        return replica

    def _held(self) -> list[int]:
        """The versions that replicas are fetching, the newest of them: what is kept cannot become the next snapshot."""
        now = time.monotonic()
        held = {replica.holds for replica in self._replicas.values() if now - replica.seen_at < HOLD_S and replica.holds}
        return sorted(held, reverse=True)[:MOST_HELD]

    async def _offered(self) -> Offer:
        """The newest version, looked at once for all replicas."""
        async with self._lock:
            lineage = (await asyncio.to_thread(lineage_of, self._paths)).id
            for _ in range(_ATTEMPTS):
                newest = self._newest
                assert newest is not None
                offer = self._offers.get(newest.version)
                if offer is not None and offer.manifest.lineage == lineage:
                    return offer
                try:
                    return await self._look(newest, lineage)
                except SnapshotNotFound:  # Why: it was retired in this moment, so there is a newer one.
                    continue
        raise DatabaseUnavailable("Versions follow each other too quickly to be given out.", retry_after_s=1)

    async def _look(self, newest: Publication, lineage: str) -> Offer:
        changes, self._changes = self._changes, _Changes(newest.version, newest.version)
        try:
            described, digests = await self._feeder.look(newest, changes.since, changes.blocks, self._held())
        except BaseException:  # Why: whatever ended it, nothing is known of what has changed since the last look.
            self._changes = _Changes(None, self._changes.until, None)
            raise
        pages = [digests[at : at + _PAGE_BYTES] for at in range(0, len(digests), _PAGE_BYTES)]
        manifest = Manifest(
            database=self._paths.name,
            version=newest.version,
            created_at=format_time(parse_time(newest.created_at)),
            lineage=lineage,
            size_bytes=described["size_bytes"],
            pages=tuple(described["pages"]),
            iteration=described["iteration"],
            identity=described["identity"],
            storage_version=described["storage_version"],
            library_version=described["library_version"],
        )
        offer = self._offers[newest.version] = Offer(manifest, dict(zip(described["pages"], pages, strict=True)))
        self.counters.blocks_hashed += described["hashed"]
        held = {newest.version, *self._held()}
        for version in [version for version in self._offers if version not in held]:
            del self._offers[version]
        return offer

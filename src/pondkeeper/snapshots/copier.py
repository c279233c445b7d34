"""One database's copier: observes the source, keeps count of what each copy lacks, publishes and retires."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.engine.fileformat import HEADERS_BYTES
from pondkeeper.errors import DatabaseBusy, DiskFull, InvalidRequest
from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.changes import ChangesNoted
from pondkeeper.snapshots.contents import Contents
from pondkeeper.snapshots.difference import Copied, bring_up
from pondkeeper.snapshots.folders import COPIER_LOCK, remove_leftovers, version_folder
from pondkeeper.snapshots.lineage import written_between
from pondkeeper.snapshots.manifest import Manifest, read_manifest
from pondkeeper.snapshots.publishing import describe, point_links, publish_target, sync_published
from pondkeeper.snapshots.shelf import Shelf
from pondkeeper.snapshots.source import Observation, Source
from pondkeeper.snapshots.target import Target, disk_errors

_ATTEMPTS = 3


@dataclass(frozen=True)
class Published:
    """A version that is visible now, and the older ones that went out of sight for it."""

    manifest: Manifest
    path: Path
    retired: list[int]
    elapsed_ms: float


class Copier:
    """Makes the snapshots of one database. One per snapshots folder, on this machine: a flock sees to that."""

    def __init__(self, source: Path, snapshots: Path, cancelling: Cancelling) -> None:
        self.source = Source(source)
        self._cancelling = cancelling
        self._observed: Observation | None = None
        self._changes = ChangesNoted()
        self._unsynced: tuple[Path, list[Path]] | None = None
        with disk_errors():
            make_folder(snapshots)
            self._lock = FlockFile(snapshots / COPIER_LOCK)
            if not self._lock.try_acquire():
                raise DatabaseBusy("Another copier works on this database's snapshots.", private=str(snapshots))
            remove_leftovers(snapshots)
        self._shelf = Shelf(snapshots, source.name)

    def publish(self, version: int, links: list[Path], keep: int, *, compare: bool = False) -> Published:
        """Make the source, as of its last checkpoint, visible as `version`, and point the links at it.

        No checkpoint may run meanwhile; if one ends, we see it and begin again. `compare`: assume nothing about what
        changed, because somebody else may have replaced the file.
        """
        started = time.perf_counter()
        make_folder(self._shelf.snapshots)
        self._shelf.forget_missing()
        with self.source.open():
            manifest = self._published_already(version)
            if manifest is None:
                target, now, copied = self._copy(compare)
                manifest = describe(version, now, copied, self._size_bytes(now), self._changes)
                self._show(target, now, manifest)
        path = version_folder(self._shelf.snapshots, version) / self.source.path.name
        point_links(links, path)
        self._unsynced = (path.parent, links)
        retired: list[int] = []
        with contextlib.suppress(
            OSError
        ):  # Why: the version is out; what cannot be retired now is tried again next time.
            retired = self._shelf.retire(keep)
        return Published(manifest, path, retired, (time.perf_counter() - started) * 1000)

    def retire(self, keep: int) -> list[int]:
        """Take versions beyond the newest `keep` out of sight, those that nobody has open."""
        self._shelf.forget_missing()
        return self._shelf.retire(keep)

    def idle_step(self) -> bool:
        """Some milliseconds of preparation for the next publish; False when nothing is left to prepare."""
        if self._unsynced:
            self.settle()
            return True
        with disk_errors():
            return self._shelf.idle_step(self._observed)

    def settle(self) -> None:
        """Flush what the last publish left to later."""
        if self._unsynced:
            unsynced, self._unsynced = self._unsynced, None
            sync_published(*unsynced)

    def close(self) -> None:
        """Let go of the database: spare, maps and lock."""
        self._shelf.drop_spare()
        self.source.forget()
        self._lock.release()

    def _copy(self, compare: bool) -> tuple[Target, Observation, Copied]:
        for _ in range(_ATTEMPTS):
            now = self._observe(compare)
            target = self._shelf.take_target(now)
            try:
                copied = bring_up(self.source, target, now, self._cancelling)
            except DiskFull:
                target.discard()
                raise
            except BaseException:  # Why: whatever ended it, what the target lacks is known, and its file is reused.
                self._shelf.put_back(target)
                raise
            if self.source.is_still(now):
                return target, now, copied
            target.contents.certain = False
            self._shelf.put_back(target)
        raise DatabaseBusy("The database was checkpointed again and again while it was copied.")

    def _observe(self, compare: bool) -> Observation:
        """Look at the source, and note in every copy what it lacks now."""
        now = self.source.observe()
        written = None if compare else written_between(self._observed, now)
        self._shelf.note(written)
        self._changes.note(written)
        self._observed = now
        return now

    def _show(self, target: Target, now: Observation, manifest: Manifest) -> None:
        try:
            publish_target(target, manifest)
        except BaseException:  # Why: whatever ended it, the half-published folder is of no use.
            target.discard()
            raise
        if now.use is None:
            target.contents = Contents()
        else:
            target.contents.settle()
        self._shelf.add(manifest.version, target.contents)
        self._changes.settle(manifest.version)

    def _size_bytes(self, now: Observation) -> int:
        return self.source.size_bytes if now.use is None else now.headers.active.size_bytes

    def _published_already(self, version: int) -> Manifest | None:
        """The manifest, if that version exists and is the source as it is: the answer to its publish was lost.

        A version that exists with other contents, or is older than the newest, is refused: versions only grow.
        """
        if not self._shelf.versions or version > self._shelf.versions[-1]:
            return None
        folder = version_folder(self._shelf.snapshots, version)
        manifest = read_manifest(folder)
        if manifest is None or not self._is_same(folder / self.source.path.name):
            raise InvalidRequest("This version, or a newer one, is published already.", version=version)
        return manifest

    def _is_same(self, snapshot: Path) -> bool:
        descriptor = os.open(snapshot, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, HEADERS_BYTES, 0) == self.source.read_bytes(HEADERS_BYTES, 0)
        finally:
            os.close(descriptor)

"""The shelf of a replica: snapshots put together from blocks, of which only those are fetched that no copy here has."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from pondkeeper.archive.manifest import Manifest
from pondkeeper.archive.replica.origin import Origin
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.tree import BLOCK_BYTES, Tree, block_count, block_span
from pondkeeper.engine.fileformat import HEADERS_BYTES, BlockUse, DatabaseHeader, Headers, parse_headers
from pondkeeper.errors import ArchiveDamaged, DatabaseBusy, PondkeeperError
from pondkeeper.files.durable import PRIVATE_FILE, make_folder, sync_file
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.changes import as_ranges
from pondkeeper.snapshots.contents import Contents
from pondkeeper.snapshots.folders import COPIER_LOCK, remove_leftovers, version_folder
from pondkeeper.snapshots.manifest import Manifest as SnapshotManifest
from pondkeeper.snapshots.publishing import point_links, publish_target, sync_published
from pondkeeper.snapshots.shelf import Shelf
from pondkeeper.snapshots.source import Observation
from pondkeeper.snapshots.target import Target, disk_errors

REPLICATED: Final = "replicated.json"
"""Beside each snapshot: the manifest of the primary's version, by which it is proved again after a restart."""
_PRIVATE: Final = ".private-*"
_ZEROS: Final = bytes(BLOCK_BYTES)


@dataclass(frozen=True)
class Have:
    """The newest version here: proved, block by block."""

    manifest: Manifest
    tree: Tree
    path: Path

    @property
    def version(self) -> int:
        return self.manifest.version

    def differs_from(self, descriptor: int) -> bool:
        """Whether a file is anything else than this version."""
        size_bytes = self.tree.size_bytes
        return os.fstat(descriptor).st_size != size_bytes or _hashed(descriptor, size_bytes) != self.tree


@dataclass
class Cost:
    """What a version has cost: blocks and bytes that were fetched, and blocks taken from copies that were here."""

    blocks_fetched: int = 0
    bytes_fetched: int = 0
    blocks_here: int = 0
    elapsed_ms: float = 0.0


class Assembler:
    """The snapshots of one replica. One per snapshots folder: the copier's flock sees to that."""

    def __init__(self, paths: DatabasePaths, keep: int) -> None:
        self._paths = paths
        self._keep = keep
        self._sealer = Sealer()
        self._zeros = self._sealer.digest(_ZEROS)
        self._unsynced: Path | None = None
        self._observed: Tree | None = None
        self.have: Have | None = None
        with disk_errors():
            make_folder(paths.snapshots)
            self._lock = FlockFile(paths.snapshots / COPIER_LOCK)
            if not self._lock.try_acquire():
                raise DatabaseBusy("Another process works on the snapshots of this replica.", private=str(paths.snapshots))
            begun = _begun(paths.snapshots, paths.file.name)
            if begun is not None:  # Why: what a fetch of hours has left is proved and used, not fetched again.
                kept = paths.snapshots / f"{paths.file.name}.begun"
                begun.replace(kept)
            remove_leftovers(paths.snapshots)
        self._shelf = Shelf(paths.snapshots, paths.file.name)
        self._take_up(paths.snapshots / f"{paths.file.name}.begun")

    def recover(self, tell: Callable[[int], None]) -> Have | None:
        """Prove the newest snapshot that an earlier process has left; one that is damaged is removed, and `tell` hears of it."""
        for version in reversed(self._shelf.versions):
            folder = version_folder(self._paths.snapshots, version)
            have = self._proved(folder)
            if have is not None:
                self.have = have
                self._observed = have.tree
                self._shelf.add(version, Contents(certain=True))
                point_links([self._paths.published, self._paths.published_by_name], have.path)
                return have
            shutil.rmtree(folder, ignore_errors=True)
            self._shelf.forget_missing()
            tell(version)
        return None

    def tree_of(self, manifest: Manifest, origin: Origin) -> Tree:
        """The tree of a version: only pages that we have not are fetched. Raises Superseded, PondkeeperError."""
        have = {} if self.have is None else dict(zip(self.have.manifest.pages, self.have.tree.pages(), strict=True))
        missing = [page for page in dict.fromkeys(manifest.pages) if page not in have]
        have |= dict(zip(missing, origin.pages(missing), strict=True))
        try:
            return Tree.of_pages(manifest.size_bytes, [have[page] for page in manifest.pages])
        except ValueError as error:
            raise ArchiveDamaged("The pages of a version do not fit its length.") from error

    def bring(self, manifest: Manifest, origin: Origin) -> Cost:
        """Make the version visible. What was fetched when it fails is kept for the next attempt. Raises as `tree_of`."""
        began_at = time.perf_counter()
        tree = self.tree_of(manifest, origin)
        self._shelf.forget_missing()
        # Why since the last attempt, and not since `have`: a copy may have been brought half-way to a version that failed.
        self._shelf.note(None if self._observed is None else _own(tree.differing(self._observed)))
        self._observed = tree
        target = self._shelf.take_target(_observation(tree))
        cost = Cost()
        try:
            if not target.contents.certain:
                self._find_out(target, tree)
            self._fill(target, tree, origin, cost)
            cost.elapsed_ms = (time.perf_counter() - began_at) * 1000
            described = self._describe(manifest, cost, tree, target)
        except BaseException:  # Why: whatever ended it, what the target lacks is known, and the next attempt goes on from there.
            self._shelf.put_back(target)
            raise
        self._show(target, manifest, described, tree)
        return cost

    def idle_step(self) -> bool:
        """Some milliseconds of preparation; False when nothing is left to prepare."""
        if self._unsynced is not None:
            unsynced, self._unsynced = self._unsynced, None
            sync_published(unsynced, [self._paths.published, self._paths.published_by_name])
            return True
        try:
            with disk_errors():
                return self._shelf.idle_step(None if self._observed is None else _observation(self._observed))
        except (OSError, PondkeeperError):  # Why: a fault here only makes the next version slower.
            return False

    def close(self) -> None:
        """Let go of the folder."""
        self._shelf.drop_spare()
        self._lock.release()

    def _take_up(self, begun: Path) -> None:
        """Go on with a file that an earlier process has left half-made."""
        if not begun.exists():
            return
        with disk_errors():
            target = Target.create(self._paths.snapshots, self._paths.file.name, 0)
            target.close()
            begun.replace(target.file)
            target.file.chmod(PRIVATE_FILE)  # Why: one that died as it showed a version has left it read-only
            descriptor = os.open(target.file, os.O_RDWR | os.O_CLOEXEC)
        self._shelf.put_back(Target(target.folder, target.file, descriptor, Contents(), recycled=False))

    def _proved(self, folder: Path) -> Have | None:
        """The version in this folder, if every bit of it is what the primary had."""
        path = folder / self._paths.file.name
        try:
            data = (folder / REPLICATED).read_bytes()
            manifest = _decoded(data, self._paths.name)
            with path.open("rb", buffering=0) as file:
                tree = _hashed(file.fileno(), manifest.size_bytes)
                if os.fstat(file.fileno()).st_size != manifest.size_bytes:
                    return None
        except (OSError, PondkeeperError):
            return None
        if tuple(self._sealer.digest(page).hex() for page in tree.pages()) != manifest.pages:
            return None
        return Have(manifest, tree, path)

    def _find_out(self, target: Target, tree: Tree) -> None:
        """What a copy lacks of which nothing is known: compared by hashes, block by block."""
        stale = set()
        for block in range(1, len(tree)):
            offset, length = block_span(block, tree.size_bytes)
            if self._sealer.digest(target.read(length, offset)) != tree.digest(block):
                stale.add(block)
        target.contents.certain, target.contents.stale = True, _own(stale)

    def _fill(self, target: Target, tree: Tree, origin: Origin, cost: Cost) -> None:
        """Write what the target lacks: from the newest copy here where that has it, else from the origin."""
        with self._newest_open() as here:
            missing: list[int] = []
            lacking = sorted(block for block in target.contents.stale if block + 1 < len(tree))
            for block in [0, *(own + 1 for own in lacking)]:
                contents = self._found_here(block, tree, here)
                if contents is None:
                    missing.append(block)
                else:
                    _put(target, tree, block, contents)
                    cost.blocks_here += 1
        places: dict[bytes, list[int]] = {}
        for block in missing:
            places.setdefault(tree.digest(block), []).append(block)
        for (contents, size_bytes), (digest, blocks) in zip(origin.blocks(list(places)), places.items(), strict=True):
            for block in blocks:
                if len(contents) != block_span(block, tree.size_bytes)[1]:
                    raise ArchiveDamaged("A block is not as long as it should be.", object=digest.hex())
                _put(target, tree, block, contents)
            cost.blocks_fetched += 1
            cost.bytes_fetched += size_bytes
        with disk_errors():
            os.ftruncate(target.descriptor, tree.size_bytes)

    def _found_here(self, block: int, tree: Tree, here: int | None) -> bytes | None:
        """The block, if the newest snapshot has it, proved, or if it is free in the database."""
        digest = tree.digest(block)
        offset, length = block_span(block, tree.size_bytes)
        if digest == self._zeros and length == BLOCK_BYTES:
            return _ZEROS
        if here is None or self.have is None or self.have.tree.digest(block) != digest:
            return None
        try:
            contents = os.pread(here, length, offset)
        except OSError:  # Why: a disk that cannot give it is no reason to go without it.
            return None
        return contents if self._sealer.digest(contents) == digest else None

    @contextlib.contextmanager
    def _newest_open(self) -> Iterator[int | None]:
        if self.have is None:
            yield None
            return
        try:
            descriptor = os.open(self.have.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # Why: somebody removed it; everything is fetched then.
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _show(self, target: Target, manifest: Manifest, described: SnapshotManifest, tree: Tree) -> None:
        try:
            with disk_errors():
                proof = target.folder / REPLICATED
                proof.write_bytes(manifest.encode(self._sealer))
                sync_file(proof)
            publish_target(target, described)
        except BaseException:  # Why: whatever ended it, the half-published folder is of no use.
            target.discard()
            raise
        target.contents.settle()
        self._shelf.add(manifest.version, target.contents)
        folder = version_folder(self._paths.snapshots, manifest.version)
        path = folder / self._paths.file.name
        self.have = Have(manifest, tree, path)
        point_links([self._paths.published, self._paths.published_by_name], path)
        self._unsynced = folder
        with contextlib.suppress(OSError):  # Why: the version is out; what cannot be retired now is tried again next time.
            self._shelf.retire(self._keep)

    def _describe(self, manifest: Manifest, cost: Cost, tree: Tree, target: Target) -> SnapshotManifest:
        changed = None if self.have is None else as_ranges(_own(tree.differing(self.have.tree)))
        try:
            own_bytes = parse_headers(target.read(HEADERS_BYTES, 0)).active.block_size_bytes
        except PondkeeperError:  # Why: a format that we do not know is followed all the same.
            own_bytes = 0
        return SnapshotManifest(
            version=manifest.version,
            created_at=manifest.created_at.replace("Z", "+00:00"),
            size_bytes=manifest.size_bytes,
            blocks=block_count(manifest.size_bytes),
            blocks_copied=cost.blocks_fetched,
            bytes_copied=cost.bytes_fetched,
            method="difference" if self.have is not None else "full",
            iteration=manifest.iteration,
            storage_version=manifest.storage_version,
            library_version=manifest.library_version,
            identity=manifest.identity,
            block_size_bytes=own_bytes,
            changed_since=None if self.have is None else self.have.version,
            changed=changed if own_bytes == BLOCK_BYTES else None,
        )


def _begun(snapshots: Path, file_name: str) -> Path | None:
    """The largest file that an earlier process has left half-made."""
    found = [*snapshots.glob(f"{_PRIVATE}/{file_name}"), *snapshots.glob(f"{file_name}.begun")]
    return max(found, key=lambda path: path.stat().st_blocks, default=None)


def _decoded(data: bytes, database: str) -> Manifest:
    """The manifest that was kept with a snapshot; its own name is in it."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, object])
        fields.pop("sha256", None)
        name = msgspec.convert(fields, Manifest).name
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArchiveDamaged("What was kept with a snapshot is no manifest.") from error
    found = Manifest.decode(data, name, Sealer())
    if found.database != database:
        raise ArchiveDamaged("What was kept with a snapshot is of another database.")
    return found


def _observation(tree: Tree) -> Observation:
    """The tree as the shelf looks at a source: what it calls block 0 is our block 1, behind the headers."""
    active = DatabaseHeader(0, 0, max(len(tree) - 1, 0), BLOCK_BYTES, b"")
    use = BlockUse(active.block_count, frozenset(), frozenset())
    return Observation((0, 0), Headers(0, "", b"", active, active, b""), use, b"", {})


def _own(blocks: Iterable[int]) -> set[int]:
    """Blocks of the tree as the shelf counts them; the headers are written each time."""
    return {block - 1 for block in blocks if block > 0}


def _put(target: Target, tree: Tree, block: int, contents: bytes) -> None:
    target.write(contents, block_span(block, tree.size_bytes)[0])
    target.contents.stale.discard(block - 1)


def _hashed(descriptor: int, size_bytes: int) -> Tree:
    """The tree of what is in a file now."""
    digests, sealer = bytearray(), Sealer()
    for block in range(block_count(size_bytes)):
        offset, length = block_span(block, size_bytes)
        digests += sealer.digest(os.pread(descriptor, length, offset))
    return Tree(size_bytes, bytes(digests))

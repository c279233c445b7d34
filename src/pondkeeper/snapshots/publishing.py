"""Make a finished target visible in one step: flush, manifest, rename, links."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from pondkeeper.files.durable import make_folder, sync_folder
from pondkeeper.snapshots.changes import ChangesNoted
from pondkeeper.snapshots.difference import Copied
from pondkeeper.snapshots.folders import SNAPSHOT_MODE, version_folder
from pondkeeper.snapshots.manifest import MANIFEST_NAME, Manifest
from pondkeeper.snapshots.source import Observation
from pondkeeper.snapshots.target import Target, disk_errors


def publish_target(target: Target, manifest: Manifest) -> None:
    """Rename the target into place as the manifest's version.

    The database's bytes are on disk before the rename, so that a version that can be seen is whole even after a power
    cut. The manifest, the rename itself and the links may wait for `sync_published`: what a power cut takes of them is
    made again, and readers do not wait for three more flushes.
    """
    with disk_errors():
        os.fchmod(target.descriptor, SNAPSHOT_MODE)
        os.fdatasync(target.descriptor)
        if not target.recycled:
            sync_folder(target.folder)  # Why: a folder that is there after a power cut must have the file in it.
        (target.folder / MANIFEST_NAME).write_bytes(manifest.encode())
        target.folder.rename(version_folder(target.folder.parent, manifest.version))
        target.close()


def point_links(links: list[Path], file: Path) -> None:
    """Point each link at the file, each in one step. The caller has the copier's lock."""
    with disk_errors():
        for link in links:
            if not _points_at(link, file):
                make_folder(link.parent)
                temp = link.with_name(f".{link.name}.tmp")  # Why always this name: what a killed one has left is taken over
                temp.unlink(missing_ok=True)
                temp.symlink_to(os.path.relpath(file, link.parent))
                temp.replace(link)


def sync_published(version: Path, links: list[Path]) -> None:
    """Flush what a publish left to later: the manifest, and the folders of version and links."""
    with disk_errors():
        descriptor = os.open(version / MANIFEST_NAME, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for folder in {version, version.parent, *(link.parent for link in links)}:
            sync_folder(folder)


def _points_at(link: Path, file: Path) -> bool:
    return link.is_symlink() and str(link.readlink()) == os.path.relpath(file, link.parent)


def describe(version: int, now: Observation, copied: Copied, size_bytes: int, changes: ChangesNoted) -> Manifest:
    """The manifest of a snapshot that is being published now."""
    moment = dt.datetime.now(dt.UTC)
    return Manifest(
        version=version,
        created_at=moment.isoformat(timespec="milliseconds"),
        size_bytes=size_bytes,
        blocks=now.block_count,
        blocks_copied=copied.blocks,
        bytes_copied=copied.size_bytes,
        method=copied.method,
        iteration=now.headers.active.iteration,
        storage_version=now.headers.storage_version,
        library_version=now.headers.library_version,
        identity=now.headers.identity.hex(),
        block_size_bytes=now.block_size_bytes,
        changed_since=changes.since,
        changed=changes.ranges,
    )

"""Make a finished target visible in one step: flush, manifest, rename, links."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from pondkeeper.files.durable import link_atomic, make_folder, sync_folder, write_atomic
from pondkeeper.snapshots.difference import Copied
from pondkeeper.snapshots.folders import SNAPSHOT_MODE, version_folder
from pondkeeper.snapshots.manifest import MANIFEST_NAME, Manifest
from pondkeeper.snapshots.source import Observation
from pondkeeper.snapshots.target import Target, disk_errors


def publish_target(target: Target, manifest: Manifest) -> None:
    """Rename the target into place as the manifest's version.

    The bytes are on disk before the rename, so that a version that can be seen is whole even after a power cut.
    """
    snapshots = target.folder.parent
    with disk_errors():
        os.fchmod(target.descriptor, SNAPSHOT_MODE)
        os.fsync(target.descriptor)
        write_atomic(target.folder / MANIFEST_NAME, manifest.encode())
        target.folder.rename(version_folder(snapshots, manifest.version))
        target.close()
        sync_folder(snapshots)


def point_links(links: list[Path], file: Path) -> None:
    """Point each link at the file, each in one step. A power cut may undo it; the next start points them again."""
    with disk_errors():
        for link in links:
            if not _points_at(link, file):
                make_folder(link.parent)
                link_atomic(link, file)


def _points_at(link: Path, file: Path) -> bool:
    return link.is_symlink() and str(link.readlink()) == os.path.relpath(file, link.parent)


def describe(version: int, now: Observation, copied: Copied, size_bytes: int) -> Manifest:
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
    )

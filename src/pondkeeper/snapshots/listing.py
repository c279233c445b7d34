"""What snapshots there are: for the keeper and the command line, without duckdb and without opening any of them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.errors import SnapshotNotFound
from pondkeeper.files.locks import LockHolder, holders_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.folders import visible_versions
from pondkeeper.snapshots.manifest import read_manifest


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot that can be opened. `open_by`: the DuckDB programs that have it open, as far as the kernel shows."""

    version: int
    created_at: dt.datetime
    age_s: float
    size_bytes: int
    method: str | None
    path: Path
    open_by: list[LockHolder]


def list_snapshots(paths: DatabasePaths) -> list[SnapshotInfo]:
    """The snapshots, newest first. One that is retired while we look is left out."""
    found = [_describe(paths, version) for version in reversed(visible_versions(paths.snapshots))]
    return [snapshot for snapshot in found if snapshot]


def newest_snapshot(paths: DatabasePaths) -> SnapshotInfo | None:
    """The newest snapshot; None when there is none yet."""
    return next(iter(list_snapshots(paths)), None)


def newest_version(paths: DatabasePaths) -> int:
    """The newest version; 0 when there is none yet."""
    return max(visible_versions(paths.snapshots), default=0)


def snapshot_path(paths: DatabasePaths, version: int | None = None) -> Path:
    """The file of a version, or of the newest; raises SnapshotNotFound."""
    wanted = newest_version(paths) if version is None else version
    path = paths.snapshot(wanted)
    if not path.is_file():
        raise SnapshotNotFound("There is no snapshot yet." if version is None else f"There is no snapshot {version}.")
    return path


def _describe(paths: DatabasePaths, version: int) -> SnapshotInfo | None:
    path = paths.snapshot(version)
    manifest = read_manifest(paths.manifest(version).parent)
    try:
        status = path.stat()
    except OSError:
        return None
    created_at = (
        dt.datetime.fromisoformat(manifest.created_at)
        if manifest
        else dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
    )
    age_s = max(0.0, (dt.datetime.now(dt.UTC) - created_at).total_seconds())
    method = manifest.method if manifest else None
    return SnapshotInfo(version, created_at, age_s, status.st_size, method, path, holders_of(path))

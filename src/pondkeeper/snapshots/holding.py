"""Holding a snapshot: who has it open keeps the copier from changing or removing it. No engine."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pondkeeper.snapshots.folders import version_folder, visible_versions
from pondkeeper.snapshots.manifest import read_manifest


@dataclass(frozen=True)
class Wanted:
    """A version, or what was the newest at a time; of neither, what is the newest now."""

    version: int | None = None
    at: datetime | None = None

    def fits(self, version: int, created_at: datetime) -> bool:
        return (self.version is None or version == self.version) and (self.at is None or created_at <= self.at)

    def is_decided_by(self, version: int) -> bool:
        """Whether no older history can have something better than this snapshot: the version itself, or the newest of all."""
        return version == self.version or (self.version is None and self.at is None)


@dataclass(frozen=True)
class HeldSnapshot:
    """A snapshot that is open here, until `close`."""

    version: int
    created_at: datetime
    path: Path
    descriptor: int

    def close(self) -> None:
        os.close(self.descriptor)


def hold_snapshot(snapshots: Path, file_name: str, wanted: Wanted) -> HeldSnapshot | None:
    """The newest snapshot that fits, opened; None when none does. The caller closes it."""
    for version in reversed(visible_versions(snapshots)):
        path = version_folder(snapshots, version) / file_name
        with suppress(FileNotFoundError):  # Why: it may be retired while we look
            created_at = _created_at(path)
            if wanted.fits(version, created_at) and (descriptor := _opened(path)) is not None:
                return HeldSnapshot(version, created_at, path, descriptor)
    return None


def _created_at(path: Path) -> datetime:
    manifest = read_manifest(path.parent)
    if manifest is None:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return datetime.fromisoformat(manifest.created_at).astimezone(UTC)


def _opened(path: Path) -> int | None:
    """A descriptor of the snapshot; None when it went out of sight before we had it open: then it may be changed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)
    return None

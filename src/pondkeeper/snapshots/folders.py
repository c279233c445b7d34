"""The folders of snapshots: a visible one per version (twelve digits), and private ones that nobody else looks into."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

_VERSION = re.compile(r"\d{12}\Z")
_PRIVATE = ".private-"
COPIER_LOCK = ".copier.lock"
SNAPSHOT_MODE = 0o400


def version_folder(snapshots: Path, version: int) -> Path:
    return snapshots / f"{version:012d}"


def visible_versions(snapshots: Path) -> list[int]:
    """The versions that can be opened, oldest first; empty when there is no such folder."""
    if not snapshots.is_dir():
        return []
    return sorted(int(entry.name) for entry in snapshots.iterdir() if _VERSION.match(entry.name))


def private_folder(snapshots: Path) -> Path:
    """A new name that no reader looks for; what lies under it is removed when the copier starts."""
    return snapshots / f"{_PRIVATE}{secrets.token_hex(4)}"


def remove_leftovers(snapshots: Path) -> None:
    """Remove what a copier that died left half-made; what is visible is whole, and stays."""
    for entry in snapshots.iterdir():
        if entry.name.startswith(_PRIVATE):
            shutil.rmtree(entry)
        elif _VERSION.match(entry.name):
            _seal(entry)


def _seal(folder: Path) -> None:
    """Make the files read-only again: a copier that died while it asked for one left it writable."""
    for file in folder.glob("*"):
        if file.stat().st_mode & 0o777 == 0o600 and file.suffix != ".json":
            file.chmod(SNAPSHOT_MODE)

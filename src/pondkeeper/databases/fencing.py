"""Which folders each kind of child may open: what it needs for its work, and nothing of the keeper's own.

Trap: Landlock names files and whole folders. A writer makes, grows and removes its WAL beside the database, so it needs
that folder, with everything that is below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.fence import Fence

_WHO_HOLDS_A_LOCK: Final = "/proc/locks"


def folders(paths: DatabasePaths) -> list[Path]:
    """What must be there before the first child is forked: it is let into the folders that are there at that moment."""
    return [paths.snapshots, paths.published_by_name.parent, paths.incoming, paths.staging]


def writers_temp(paths: DatabasePaths) -> Path:
    """The temp folder of a database's writer."""
    return paths.home / "temp" / f"writer-{paths.name}"


def of_readers(databases: Iterable[DatabasePaths]) -> Fence:
    """The snapshots of every database, read-only: readers are shared."""
    return Fence(read=tuple(str(paths.snapshots) for paths in databases))


def of_stagers(databases: list[DatabasePaths]) -> Fence:
    """The bodies that have come and the snapshots, read-only; staged rows to be written."""
    read = [str(folder) for paths in databases for folder in (paths.incoming, paths.snapshots)]
    return Fence(read=tuple(read), write=tuple(str(paths.staging) for paths in databases))


def of_writer(paths: DatabasePaths) -> Fence:
    """The database's own folder, whose turn it is, and what is to be loaded."""
    read = (_WHO_HOLDS_A_LOCK, str(paths.incoming), str(paths.staging))
    return Fence(read, (str(paths.file.parent), str(paths.turn), str(writers_temp(paths))), may_touch=True)


def of_copier(paths: DatabasePaths) -> Fence:
    """The database file's folder, read-only; its snapshots and the links to the newest of them."""
    return Fence((_WHO_HOLDS_A_LOCK, str(paths.file.parent)), (str(paths.folder),), may_touch=True)

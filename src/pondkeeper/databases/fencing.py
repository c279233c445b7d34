"""Which folders each kind of child may open: what it needs for its work, and nothing of the keeper's own.

Readers and stagers have a database each, behind whose fence they are born. Trap: Landlock names files and whole
folders, with everything that is below them. A writer makes, grows, renames and removes its WALs beside the database, and
a file that is not there yet cannot be named; so it needs files in that folder, and no more than files.
"""

from __future__ import annotations

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


def repairers_temp(paths: DatabasePaths) -> Path:
    """The temp folder of whoever looks whether the file is torn."""
    return paths.home / "temp" / f"repairer-{paths.name}"


def of_reader(paths: DatabasePaths) -> Fence:
    """The snapshots of one database, read-only. Trap: of all its versions, since a fence that is up cannot be moved on."""
    return Fence(read=(str(paths.snapshots),))


def of_stager(paths: DatabasePaths) -> Fence:
    """The bodies that have come for one database and its snapshots, read-only; its staged rows to be written."""
    return Fence(read=(str(paths.incoming), str(paths.snapshots)), write=(str(paths.staging),))


def of_writer(paths: DatabasePaths) -> Fence:
    """The files in the database's folder, whose turn it is, what is to be loaded, and the snapshots: is the newest as the file?"""
    read = (_WHO_HOLDS_A_LOCK, str(paths.incoming), str(paths.staging), str(paths.snapshots))
    own = (str(paths.turn), str(writers_temp(paths)))
    return Fence(read, own, files_in=(str(paths.file.parent),), may_touch=True)


def of_repairer(paths: DatabasePaths) -> Fence:
    """The files in the database's folder, a WAL to be cut; beside it what is to replace it; and its snapshots."""
    read = (_WHO_HOLDS_A_LOCK, str(paths.snapshots))
    own = (str(paths.turn), str(repairers_temp(paths)))
    return Fence(read, own, files_in=(str(paths.file.parent),), may_touch=True)


def of_copier(paths: DatabasePaths) -> Fence:
    """The database file's folder, read-only; its snapshots and the links to the newest of them."""
    return Fence((_WHO_HOLDS_A_LOCK, str(paths.file.parent)), (str(paths.folder),), may_touch=True)

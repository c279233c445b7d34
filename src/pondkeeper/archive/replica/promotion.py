"""Promotion as keeper and command line ask for it: what was promoted, and the child that does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from pondkeeper.errors import PromotionRefused
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.alone import ask
from pondkeeper.workers.fence import Fence

ENTRY: Final = "pondkeeper.archive.replica.promoting"


@dataclass(frozen=True)
class Promoted:
    """What became a primary: the version it begins with, of when that was, and its lineage."""

    database: str
    version: int
    created_at: str
    lineage: str


def was_promoted(paths: DatabasePaths) -> bool:
    """Whether this replica has become a primary. Raises PromotionRefused for a file that no promotion has put there."""
    if not paths.file.exists():
        return False
    if note_of(paths).exists():
        return True
    raise PromotionRefused(
        f"There is a database file {paths.file.name!r} already where a replica of that name was to be.",
        remedy="Give replicas a folder of their own.",
        private=str(paths.file),
    )


def promote(paths: DatabasePaths, source: str) -> Promoted:
    """Make the newest snapshot the database, in a process of its own. Nobody follows meanwhile. Blocks: some seconds a GB.

    Raises PromotionRefused, SnapshotNotFound, DatabaseBusy, DatabaseUnreadable, DiskFull, WorkerDied.
    """
    make_folder(paths.file.parent)
    within = Fence(write=(str(paths.folder), str(paths.file.parent)), may_touch=True)
    question = {"file": str(paths.file), "home": str(paths.home), "source": source}
    return msgspec.convert(ask(ENTRY, question, within), Promoted)


def note_of(paths: DatabasePaths) -> Path:
    """The note of a promotion: what tells its file from one that somebody put there."""
    return paths.folder / "promoted.json"

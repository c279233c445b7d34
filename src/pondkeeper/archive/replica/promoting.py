"""The process that makes a primary of a replica: its newest snapshot is copied, proved and put where the file belongs.

In this order, each step durable before the next: a lineage of its own, a note of the promotion, the file. Until the file is
there it is a replica, and a promotion that was cut off is begun anew; once it is there it is a database like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.archive.lineage import begin_lineage
from pondkeeper.archive.replica.assembling import Assembler, Have
from pondkeeper.archive.replica.promotion import Promoted, note_of
from pondkeeper.errors import DatabaseUnreadable, PromotionRefused, SnapshotNotFound
from pondkeeper.files.durable import PRIVATE_FILE, make_folder, sync_folder, write_atomic
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.scratch import scratch_folder
from pondkeeper.snapshots.target import disk_errors

_PIECE_BYTES = 64 << 20


def answer(question: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:  # noqa: ARG001  Why: every entry takes them
    """For `workers/alone.py`. Raises as `promote`."""
    paths = DatabasePaths(Path(question["file"]), Path(question["home"]))
    return dict(msgspec.to_builtins(_promote(paths, question["source"])))


def _promote(paths: DatabasePaths, source: str) -> Promoted:
    """Make the newest snapshot the database. Nobody follows meanwhile: the copier's lock is taken. Blocks for about a second a GB.

    Raises PromotionRefused, SnapshotNotFound, DatabaseBusy, DatabaseUnreadable, DiskFull.
    """
    for left in (paths.file, paths.wal):
        if left.exists():
            raise PromotionRefused(
                f"{left.name!r} is there already, so this is no replica.", remedy="Move it away.", private=str(left)
            )
    assembler = Assembler(paths, keep=1000)
    try:
        have = assembler.recover(lambda _: None)
        if have is None:
            raise SnapshotNotFound("The replica has no version yet that could become a database.")
        make_folder(paths.file.parent)
        with disk_errors(), scratch_folder(paths.file.parent) as folder:
            temp = folder / paths.file.name
            _copy_whole(have, temp)
            lineage = begin_lineage(paths, have.version)
            found = Promoted(paths.name, have.version, have.manifest.created_at, lineage.id)
            write_atomic(note_of(paths), msgspec.json.encode({**msgspec.to_builtins(found), "replica_of": source}))
            os.link(temp, paths.file)  # Why: unlike a rename it cannot replace a file that somebody made meanwhile.
        sync_folder(paths.file.parent)
    finally:
        assembler.close()
    return found


def _copy_whole(have: Have, file: Path) -> None:
    """A durable copy of the version, equal to the last bit."""
    target = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        source = os.open(have.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _copy(source, target)
            os.fsync(target)
        finally:
            os.close(source)
        if have.differs_from(target):
            raise DatabaseUnreadable("The copy of the newest version is not what that is; the replica is untouched.")
    finally:
        os.close(target)


def _copy(source: int, target: int) -> None:
    while os.copy_file_range(source, target, _PIECE_BYTES) > 0:
        pass

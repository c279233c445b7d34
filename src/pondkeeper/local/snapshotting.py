"""A snapshot of a database that no keeper serves, made in a turn of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pondkeeper.archive.copies import engine_room
from pondkeeper.databases import fencing
from pondkeeper.databases.remembered import Remembered
from pondkeeper.errors import DatabaseMissing
from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import program_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import file_state
from pondkeeper.local.turn import Tell, take_turn
from pondkeeper.settings import Settings
from pondkeeper.snapshots.listing import SnapshotInfo, newest_snapshot, newest_version
from pondkeeper.workers import alone
from pondkeeper.writer.lease import Lease, OnWait

FOLDING: Final = "pondkeeper.engine.folding"
PUBLISHING: Final = "pondkeeper.snapshots.publishing_alone"


def snapshot_of_now(
    paths: DatabasePaths,
    settings: Settings,
    wait_s: float,
    tell: Tell = lambda text: None,
    *,
    why: str,
    first_version: Callable[[], int] = lambda: 1,
    on_wait: OnWait = lambda holder, ahead: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> SnapshotInfo:
    """The newest snapshot, if it has everything that the file has; else a new one. Raises PondkeeperError.

    `first_version`: of a database that has no snapshots yet.
    """
    if not paths.file.exists():
        raise DatabaseMissing(private=str(paths.file))
    lease = Lease(paths, who=program_of(os.getpid()), why=why)
    take_turn(lease, paths, wait_s, tell, on_wait=on_wait, is_cancelled=is_cancelled)
    try:
        newest = newest_snapshot(paths)
        remembered = Remembered.read(_remembered_file(paths))
        if newest is None or remembered.file_state != file_state(paths.file):
            version = next_version(paths) if newest is not None else max(next_version(paths), first_version())
            newest = _publish(paths, settings, version, tell)
            # Why: whoever comes next, a keeper too, need not make it again.
            remembered.file_state = file_state(paths.file)
            remembered.write(_remembered_file(paths))
        return newest
    finally:
        lease.release()


def has_everything(paths: DatabasePaths) -> bool:
    """Whether the newest snapshot has all that is in the file, as far as can be told without a turn."""
    return newest_version(paths) > 0 and Remembered.read(_remembered_file(paths)).file_state == file_state(paths.file)


def next_version(paths: DatabasePaths) -> int:
    """The version that the next snapshot of a database without a keeper gets, or a lower one than it gets."""
    newest = newest_version(paths)
    return Remembered.read(_remembered_file(paths)).first_version(newest or None, has_past=paths.snapshots.exists())


def _publish(paths: DatabasePaths, settings: Settings, version: int, tell: Tell) -> SnapshotInfo:
    for folder in (*fencing.folders(paths), fencing.writers_temp(paths)):
        make_folder(folder)
    with engine_room(settings) as (resources, temp, limits):
        question = {"path": str(paths.file), **resources, "may_make": False}
        alone.ask(FOLDING, question, fencing.of_writer(paths).with_own(Path(temp)), limits=limits, tell=tell)
    message = {
        "op": "publish",
        "version": version,
        "source": str(paths.file),
        "snapshots": str(paths.snapshots),
        "links": [str(paths.published), str(paths.published_by_name)],
        "keep": settings.snapshots.keep,
        "compare": True,
    }
    alone.ask(PUBLISHING, message, fencing.of_copier(paths), tell=tell)
    newest = newest_snapshot(paths)
    assert newest is not None, "it was just published"
    return newest


def _remembered_file(paths: DatabasePaths) -> Path:
    return paths.folder / "remembered.json"

"""`pondkeeper.read`: the newest snapshot of a database as a plain read-only DuckDB connection."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pondkeeper.errors import DatabaseBusy, PondkeeperError, SnapshotNotFound, VersionNotReached
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.local.known import database_of, home_of, serving_home
from pondkeeper.local.turn import is_open_here
from pondkeeper.snapshots.listing import newest_version

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection

WAIT_S = 30.0
POLL_S = 0.01

_temp: tuple[int, str] | None = None
"""This process and its folder for what does not fit into memory."""

_opened: set[Path] = set()
_inherited: set[Path] = set()
"""Snapshots that this process has opened, and those that a parent had when it was forked."""


def read(
    database: str | os.PathLike[str] | None = None,
    *,
    home: str | os.PathLike[str] | None = None,
    at_least: int | None = None,
    wait_s: float = WAIT_S,
) -> Connection:
    """A connection to the newest snapshot: consistent, milliseconds old, and in nobody's way however long it is open.

    `database` is a file, or a name in `home` (by default the `.pondkeeper/` of the working folder or above it); it is
    not needed where there is one. `at_least` waits, for `wait_s` at most, until that version is published; raises
    VersionNotReached. It is read-only, and stays on its version: call `read` again for a newer one.

    A database that has no snapshot is not opened behind its writer's back: raises SnapshotNotFound.
    """
    found = database_of(database, home, may_miss=True)
    paths = home_of(found).database(found.file)
    deadline = time.monotonic() + wait_s
    while True:
        version, is_late = newest_version(paths), time.monotonic() >= deadline
        if version >= (at_least or 1):
            connection = _open(paths, version, is_late=is_late)
            if connection is not None:
                return connection
        elif is_late or serving_home(paths) is None:
            raise _none_yet(paths, version, at_least)
        time.sleep(POLL_S)


def version_of(connection: Connection) -> int:
    """The version of the snapshot that `read` has opened as this connection. Raises SnapshotNotFound for any other."""
    [[file]] = connection.execute("SELECT path FROM duckdb_databases() WHERE database_name = current_database()").fetchall()
    folder = Path(file or "").parent.name
    if not folder.isdigit():
        raise SnapshotNotFound("This connection is to no snapshot.", remedy="Open one by `pondkeeper.read(…)`.")
    return int(folder)


def _open(paths: DatabasePaths, version: int, *, is_late: bool) -> Connection | None:
    """The open snapshot; None when it was retired between the look and the open, and there is time for another look."""
    from pondkeeper.engine.plain import open_plain_snapshot

    path = paths.snapshot(version)
    _refuse_if_inherited(path)
    try:
        connection = open_plain_snapshot(str(path), _temp_folder())
        _opened.add(path)
        return connection
    except PondkeeperError:
        if is_late or newest_version(paths) == version:
            raise
        return None


def _refuse_if_inherited(path: Path) -> None:
    """Raise DatabaseBusy in a child of a process that has this snapshot open.

    Trap: it would get the parent's instance of DuckDB, whose threads did not come along, and whose temp folder the parent
    uses: two that spill into one folder crash.
    """
    if path in _inherited and is_open_here(path):
        raise DatabaseBusy(
            "This process was forked from one that has the snapshot open in DuckDB.",
            remedy="Start processes by spawn, or call `read` in them before the parent does.",
        )


def _note_fork() -> None:
    _inherited.update(_opened)
    _opened.clear()


os.register_at_fork(after_in_child=_note_fork)


def _none_yet(paths: DatabasePaths, version: int, at_least: int | None) -> SnapshotNotFound | VersionNotReached:
    serves = serving_home(paths) is not None
    if version:
        why = "was not published in time" if serves else "is not there, and no keeper runs that would publish it"
        return VersionNotReached(f"Version {at_least} {why}; the newest is {version}.", newest_version=version)
    if serves:
        return SnapshotNotFound(f"Database {paths.name!r} has no snapshot yet.", remedy="`pondkeeper status` says why.")
    return SnapshotNotFound(
        f"Database {paths.name!r} has no snapshot, and no keeper runs that would make one.",
        remedy="Start one (`pondkeeper serve`), or open the file itself in your turn: `with pondkeeper.write(…)`.",
    )


def _temp_folder() -> str:
    """A private folder of this process, removed at its end. Why: in a shared one others could read what was spilled."""
    global _temp
    if _temp is None or _temp[0] != os.getpid():
        _temp = (os.getpid(), tempfile.mkdtemp(prefix="pondkeeper-"))
        atexit.register(_remove, *_temp)
    return _temp[1]


def _remove(pid: int, folder: str) -> None:
    if os.getpid() == pid:
        shutil.rmtree(Path(folder), ignore_errors=True)

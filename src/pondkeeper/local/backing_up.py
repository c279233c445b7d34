"""The archive where no keeper serves the database: what `pondkeeper backup` does there, in a turn of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pondkeeper.archive.copies import engine_room, in_utc
from pondkeeper.archive.lineage import lineage_of
from pondkeeper.archive.place import Place, place_to_wire, place_without_keeper
from pondkeeper.archive.upkeep import retention_of
from pondkeeper.files.durable import make_folder, sync_folder
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.files.scratch import scratch_folder
from pondkeeper.local.copying import settings_of
from pondkeeper.local.snapshotting import snapshot_of_now
from pondkeeper.settings import Settings
from pondkeeper.workers import alone
from pondkeeper.workers.fence import Fence

OFFLINE: Final = "pondkeeper.archive.offline"
CHECKING: Final = "pondkeeper.archive.checking"

Tell = Callable[[str], None]


def now(paths: DatabasePaths, wait_s: float, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Archive what the file holds: a snapshot is made in this program's turn, and archived after it. Raises PondkeeperError."""
    settings = settings_of(Home(paths.home))
    snapshot = snapshot_of_now(
        paths, settings, wait_s, tell, why="backup of the database", first_version=lambda: _first_version(paths)
    )
    created_at = in_utc(snapshot.created_at)
    message = {
        "op": "archive",
        "database": paths.name,
        "version": snapshot.version,
        "path": str(snapshot.path),
        "created_at": created_at,
        "lineage": lineage_of(paths).id,
    }
    done = _ask(_place(paths, settings), message, tell, read=(str(paths.snapshots),))
    return {"database": paths.name, "version": done["version"], "created_at": created_at}


def listed(paths: DatabasePaths, limit: int) -> dict[str, Any]:
    """The versions that the archive has, newest first. Raises PondkeeperError."""
    place = _place(paths, settings_of(Home(paths.home)))
    return _without_time(_ask(place, {"op": "list", "database": paths.name, "limit": limit}))


def verify(paths: DatabasePaths, version: int | None, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Restore a version (the newest) into a folder of its own, check it, throw it away. Raises what is wrong with it."""
    settings = settings_of(Home(paths.home))
    place, started = _place(paths, settings), time.perf_counter()
    with scratch_folder(paths.home) as folder:
        file = folder / paths.file.name
        message = {"op": "take_out", "database": paths.name, "version": version, "target": str(file)}
        made = _ask(place, message, tell, write=(str(folder),))
        with engine_room(settings) as (resources, temp, limits):
            tell("reading every table")
            within = Fence((str(folder),), (temp,))
            checked = alone.ask(CHECKING, {"path": str(file), **resources}, within, limits=limits, tell=tell)
    return {"database": paths.name, **made, **checked, "elapsed_ms": (time.perf_counter() - started) * 1000}


def prune(home: Home, tell: Tell = lambda text: None, *, dry_run: bool) -> dict[str, Any]:
    """Remove what the settings let go, of every database in the archive. Raises PondkeeperError."""
    settings = settings_of(home)
    message = {"op": "prune", "retention": retention_of(settings.archive), "dry_run": dry_run}
    return _without_time(_ask(place_without_keeper(settings.archive, home), message, tell))


def _first_version(paths: DatabasePaths) -> int:
    """Of a database that has no snapshots: above all that the archive has of it, since version numbers only grow."""
    return max((each["version"] + 1 for each in listed(paths, 1)["versions"]), default=1)


def _place(paths: DatabasePaths, settings: Settings) -> Place:
    return place_without_keeper(settings.archive, Home(paths.home))


def _ask(
    place: Place,
    message: dict[str, Any],
    tell: Tell = lambda text: None,
    *,
    read: tuple[str, ...] = (),
    write: tuple[str, ...] = (),
) -> dict[str, Any]:
    """One message to a process that has the archive open."""
    for folder in map(Path, place.writable()):
        make_folder(folder)
        sync_folder(folder.parent)
    within = Fence((*read, *place.readable()), (*write, *place.writable()), may_connect=place.is_bucket)
    question = {"open": {"op": "open", **place_to_wire(place)}, "message": message}
    return alone.ask(OFFLINE, question, within, tell=tell, environment=place.environment)


def _without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "elapsed_ms"}

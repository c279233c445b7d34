"""A database as it was, in a file of its own: asks the restorer for it and has it proved. For commands and the keeper."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pondkeeper.archive.names import IDENTITY
from pondkeeper.archive.place import Place, place_without_keeper
from pondkeeper.files.durable import sync_folder
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.files.scratch import scratch_folder
from pondkeeper.settings import Settings
from pondkeeper.snapshots.holding import Wanted, hold_snapshot
from pondkeeper.workers import alone
from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.workers.fence import Fence

Tell = Callable[[str], None]
RESTORER: Final = "pondkeeper.archive.restorer"
PROVING: Final = "pondkeeper.engine.proving"


@dataclass(frozen=True)
class Past:
    """Where a database's past lies: its snapshots, and its archive (None: there is none)."""

    paths: DatabasePaths
    archive: Place | None

    @classmethod
    def of(cls, paths: DatabasePaths, settings: Settings) -> Past:
        """As commands see it that run without the keeper; of an archive in a folder that is not there, nothing."""
        return cls.at(paths, place_without_keeper(settings.archive, Home(paths.home)))

    @classmethod
    def at(cls, paths: DatabasePaths, place: Place) -> Past:
        """With the archive at that place, if there is one."""
        return cls(paths, place if place.is_bucket or (Path(place.target) / IDENTITY).is_file() else None)


def fetch(
    past: Past, wanted: Wanted, file: Path, tell: Tell = lambda text: None, is_given_up: alone.GivenUp = lambda: False
) -> dict[str, Any]:
    """Make `file` of what was wanted; whole and durable, and not yet proved. Blocks. Raises PondkeeperError."""
    archive = past.archive
    question = {
        "snapshots": str(past.paths.snapshots),
        "file_name": past.paths.file.name,
        "archive": archive.target if archive else None,
        "key_file": archive.key_file if archive else "",
        "database": past.paths.name,
        "version": wanted.version,
        "at": wanted.at.isoformat() if wanted.at else None,
        "file": str(file),
    }
    read, write = [str(past.paths.snapshots), "/proc/locks"], [str(file.parent)]
    if archive is not None:
        read += [*archive.readable(), *archive.writable()]  # Why only read: a restore leaves no trace in the archive
    within = Fence(tuple(read), tuple(write), may_touch=True, may_connect=archive is not None and archive.is_bucket)
    environment = archive.environment if archive is not None else {}
    return alone.ask(RESTORER, question, within, tell=tell, environment=environment, is_given_up=is_given_up)


def prover() -> alone.Child:
    """A child that will prove a file; begun while the file is made, it has loaded the engine when that is done."""
    return alone.Child(PROVING)


def prove(
    file: Path,
    settings: Settings,
    tell: Tell = lambda text: None,
    is_given_up: alone.GivenUp = lambda: False,
    by: alone.Child | None = None,
) -> dict[str, Any]:
    """Have DuckDB open the file and read it; what it holds. Raises DatabaseUnreadable and others."""
    with engine_room(settings) as (resources, temp, limits), by or prover() as child:
        within = Fence((str(file), *(str(file) + end for end in (".wal", ".wal.checkpoint"))), (temp,))
        question = {"path": str(file), **resources}
        return child.ask(question, within, limits=limits, tell=tell, is_given_up=is_given_up)


@contextmanager
def engine_room(settings: Settings) -> Iterator[tuple[dict[str, Any], str, dict[str, int]]]:
    """What a child that uses the engine alone may take: its resources, its temp folder, its rlimits."""
    readers = settings.readers
    with tempfile.TemporaryDirectory(prefix="pondkeeper-") as temp:
        resources = {
            "memory_limit_bytes": readers.memory_limit_bytes,
            "threads": readers.threads,
            "temp_directory": temp,
            "temp_limit_bytes": readers.temp_limit_bytes,
        }
        yield resources, temp, Ceiling(readers.memory_limit_bytes).rlimits


@contextmanager
def file_of(past: Past, wanted: Wanted, folder: Path, tell: Tell = lambda text: None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A file of what was wanted that nobody changes, to be read: the snapshot itself, held open, or one made in `folder`."""
    snapshot = hold_snapshot(past.paths.snapshots, past.paths.file.name, wanted)
    if snapshot is not None:
        try:
            if past.archive is None or wanted.is_decided_by(snapshot.version):
                yield snapshot.path, {"version": snapshot.version, "created_at": in_utc(snapshot.created_at)}
                return
        finally:
            snapshot.close()
    file = folder / past.paths.file.name
    yield file, fetch(past, wanted, file, tell)


def in_utc(time: datetime) -> str:
    """As manifests have it: 2026-11-20T14:03:07.123Z."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_copy(past: Past, wanted: Wanted, file: Path, settings: Settings, tell: Tell = lambda text: None) -> dict[str, Any]:
    """A new database file, writable and nobody's: whole, proved and durable, or not there at all.

    Raises FileExistsError rather than replace one.
    """
    if file.exists():
        raise FileExistsError(17, "There is a file of that name already", str(file))
    with scratch_folder(file.parent) as folder, prover() as proving:
        temp = folder / file.name
        made = fetch(past, wanted, temp, tell)
        proof = prove(temp, settings, tell, by=proving)
        os.link(temp, file)  # Why: unlike a rename it cannot replace a file that somebody made meanwhile.
    sync_folder(file.parent)
    return {**made, "tables": proof["tables"], "file": str(file)}


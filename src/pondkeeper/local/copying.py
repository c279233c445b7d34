"""Databases as they are, or were, in files of their own: what `clone`, `diff` and `export` are about. Reads no live file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pondkeeper.archive.copies import Past, engine_room, file_of, make_copy
from pondkeeper.errors import DatabaseBusy, DatabaseNotFound, InvalidRequest
from pondkeeper.files.durable import sync_folder
from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import SUFFIX, DatabasePaths, Home
from pondkeeper.files.scratch import scratch_folder
from pondkeeper.local.known import database_at, find_database, home_of, is_file_name
from pondkeeper.settings import Settings, resolve, this_machine
from pondkeeper.snapshots.holding import Wanted
from pondkeeper.workers import alone
from pondkeeper.workers.fence import Fence

Tell = Callable[[str], None]
EXPORTING: Final = "pondkeeper.engine.exporting"
COMPARING: Final = "pondkeeper.engine.comparing"
_AT_VERSION = re.compile(r"(?P<name>.+)@(?P<version>\d+)\Z")


@dataclass(frozen=True)
class Side:
    """One of the two databases that are compared: as it is now, at a version, or a file of nobody's."""

    paths: DatabasePaths
    version: int | None


def settings_of(home: Home) -> Settings:
    """The settings of the keeper that has this home."""
    machine = this_machine()
    return resolve(Settings.load(home.settings_file), machine.cpus, machine.ram_bytes)


def named(name: str, home: Home | None) -> DatabasePaths:
    """A database by its name in a home, or by its file; where its keeper has another home than the one beside it, there."""
    if is_file_name(name):
        found = database_at(Path(name).absolute(), may_miss=True)
        return home_of(found).database(found.file)
    if home is None:
        raise DatabaseNotFound(f"There is no database {name!r} here.", remedy="Name its file, or its keeper by --home.")
    return find_database(home, name)


def time_of(text: str) -> datetime:
    """A point in time as people write it, `now` too; without a zone it is that of this machine's clock. Raises InvalidRequest."""
    if text == "now":
        return datetime.now(UTC)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is no point in time.", remedy="Write it as 2026-11-20 14:03:07, or 2026-11-20T14:03:07Z for UTC."
        ) from error


def clone(paths: DatabasePaths, wanted: Wanted, file: Path, tell: Tell = lambda text: None) -> dict[str, Any]:
    """A writable copy at `file`, which is not there. Raises PondkeeperError and FileExistsError."""
    settings = settings_of(Home(paths.home))
    return make_copy(Past.of(paths, settings), wanted, file.absolute(), settings, tell)


def export(paths: DatabasePaths, wanted: Wanted, folder: Path, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Write the database as Parquet files, and the SQL that loads them, into `folder`: whole, or not at all.

    `folder` is new or empty. Raises PondkeeperError and FileExistsError.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(17, "There is something of that name already", str(folder))
    settings = settings_of(Home(paths.home))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent) as work:
        target = work / "export"
        target.mkdir(mode=0o700)
        place = Past.of(paths, settings)
        with file_of(place, wanted, work, tell) as (source, made), engine_room(settings) as (resources, temp, limits):
            question = {"path": str(source), "folder": str(target), **resources}
            within = Fence((str(source),), (str(target), temp))
            written = alone.ask(EXPORTING, question, within, limits=limits, tell=tell)
        target.rename(folder)
    sync_folder(folder.parent)
    return {"version": made["version"], "created_at": made["created_at"], **written, "folder": str(folder)}


def side(name: str, home: Home | None) -> Side:
    """`NAME`, `NAME@VERSION`, or a file."""
    found = _AT_VERSION.match(name)
    if found and not Path(name).exists():
        return Side(named(found["name"], home), int(found["version"]))
    return Side(named(name, home), None)


def compare(left: Side, right: Side, tell: Tell = lambda text: None) -> dict[str, Any]:
    """What differs between two databases: tables, rows, other objects. Raises PondkeeperError."""
    settings = settings_of(Home(left.paths.home))
    with (
        _file_of(left, tell) as (mine, left_is),
        _file_of(right, tell) as (theirs, right_is),
        engine_room(settings) as (resources, temp, limits),
    ):
        read = [path + end for path in (mine, theirs) for end in ("", ".wal", ".wal.checkpoint")]
        question = {"left": mine, "right": theirs, **resources}
        found = alone.ask(COMPARING, question, Fence(tuple(read), (temp,)), limits=limits, tell=tell)
    return {"left": left_is, "right": right_is, **found}


@contextmanager
def _file_of(side: Side, tell: Tell) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file of that side that nobody changes. Of a database that a keeper has, or had, a snapshot; else the file itself."""
    paths = side.paths
    has_past = paths.snapshots.is_dir() and any(paths.snapshots.glob("[0-9]*"))
    if side.version is None and not has_past:
        if not paths.file.is_file():
            raise DatabaseNotFound(f"There is no database {paths.file.name!r}.", private=str(paths.file))
        if is_flocked(paths.lease_lock):
            raise DatabaseBusy(f"Somebody writes {paths.file.name!r}, and there is no snapshot of it.")
        yield str(paths.file), {"database": paths.name, "version": None}
        return
    place = Past.of(paths, settings_of(Home(paths.home)))
    with (
        scratch_folder(paths.folder) as folder,
        file_of(place, Wanted(version=side.version), folder, tell) as (file, made),
    ):
        yield str(file), {"database": paths.name, "version": made["version"], "created_at": made["created_at"]}


def suggested(file: Path) -> Path:
    """The file that a name for a new database means."""
    return file if file.suffix == SUFFIX else file.with_name(file.name + SUFFIX)

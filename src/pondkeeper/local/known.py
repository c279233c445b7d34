"""The databases of a home as this machine's files show them, without asking the keeper."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pondkeeper.errors import DatabaseNotFound, InvalidRequest, KeeperNotRunning
from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import HOME_NAME, DatabasePaths, Home, default_home

SUFFIX = ".duckdb"


@dataclass(frozen=True)
class KeeperFile:
    """What `keeper.json` says of the keeper that runs here, or ran last; the flock says whether it still runs."""

    running: bool
    pid: int | None = None
    url: str | None = None
    started_at: str | None = None
    version: str | None = None
    databases: tuple[Path, ...] = ()


def search_home(start: Path) -> Home | None:
    """The nearest `.pondkeeper/` in `start` or above it."""
    for folder in (start, *start.parents):
        if (folder / HOME_NAME).is_dir():
            return Home(folder / HOME_NAME)
    return None


def home_at(path: Path) -> Home:
    """The home that somebody named: itself, the folder that contains it, or its database file."""
    path = path.absolute()
    if path.name != HOME_NAME and (path / HOME_NAME).is_dir():
        return Home(path / HOME_NAME)
    return Home(default_home(path)) if path.is_file() else Home(path)


def existing(home: Home | None) -> Home:
    """The home, if there is one on disk. Raises KeeperNotRunning."""
    if home is None:
        raise KeeperNotRunning(f"There is no {HOME_NAME}/ in the working folder or above it.")
    if not home.root.is_dir():
        raise KeeperNotRunning("There is no keeper's home at the place that was named.", private=str(home.root))
    return home


def keeper_of(home: Home) -> KeeperFile:
    """The keeper of a home, from its files and the kernel."""
    running = is_flocked(home.keeper_lock)
    try:
        said = json.loads(home.keeper_json.read_bytes())
    except (OSError, ValueError):
        return KeeperFile(running=running)
    if not isinstance(said, dict):
        return KeeperFile(running=running)
    return KeeperFile(
        running=running,
        pid=said.get("pid"),
        url=said.get("url"),
        started_at=said.get("started_at"),
        version=said.get("version"),
        databases=tuple(_files(said.get("databases"))),
    )


def _files(databases: Any) -> list[Path]:
    """The files in keeper.json: `{"name": "/path/of.duckdb"}`."""
    files = databases.values() if isinstance(databases, dict) else ()
    return [Path(file) for file in files if isinstance(file, str)]


def serving_home(paths: DatabasePaths) -> Home | None:
    """The home of the keeper that serves this database now, wherever it lies; None when none does."""
    return home_of(paths) if is_flocked(paths.claim_lock) else None


def home_of(paths: DatabasePaths) -> Home:
    """The home of the keeper that serves this database, or served it last: where its snapshots lie."""
    try:
        return Home(Path(json.loads(paths.claim_json.read_bytes())["home"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Home(paths.home)


def is_own_child(program: str) -> bool:
    """Whether a program, as the kernel names it, is a reader, writer or copier of a keeper."""
    return program.endswith("-m pondkeeper.workers.template")


def who(program: str, pid: int) -> str:
    """A program in words: `python load.py (pid 12)`, or `the keeper (pid 12)` for children of a keeper."""
    return f"{'the keeper' if is_own_child(program) else program} (pid {pid})"


def databases_of(home: Home) -> list[DatabasePaths]:
    """Every database of a home: those its keeper has, else the files beside the home, and those that have snapshots."""
    files = keeper_of(home).databases or sorted({*home.root.parent.glob(f"*{SUFFIX}"), *_lost_files(home)})
    return [home.database(file) for file in files]


def _lost_files(home: Home) -> Iterator[Path]:
    """Where the files of databases were that have snapshots: a file that is lost is restored from one of them."""
    for folder in home.root.glob("databases/*/snapshots/"):
        if any(folder.glob("[0-9]*")):
            yield home.root.parent / f"{folder.parent.name}{SUFFIX}"


def database_names(home: Home) -> list[str]:
    """Their names, for completion."""
    return [paths.name for paths in databases_of(home)]


def find_database(home: Home, name: str | None) -> DatabasePaths:
    """The database of that name; without a name the only one."""
    found = databases_of(home)
    if name is None:
        return _only(found)
    for paths in found:
        if paths.name == name:
            return paths
    raise DatabaseNotFound(f"There is no database {name!r} here; there is: {_listed(found)}.")


def database_at(file: Path, *, may_miss: bool = False) -> DatabasePaths:
    """A database named by its file, with the home beside it."""
    if not may_miss and not file.is_file():
        raise DatabaseNotFound("There is no such database file.", private=str(file))
    return Home(default_home(file)).database(file)


def is_file_name(name: str | os.PathLike[str]) -> bool:
    """Whether a database is named by its file, and not by its name in a home."""
    return not isinstance(name, str) or name.endswith(SUFFIX) or os.sep in name


def _only(found: list[DatabasePaths]) -> DatabasePaths:
    if not found:
        raise DatabaseNotFound("This home has no database yet.")
    if len(found) > 1:
        raise InvalidRequest(
            f"There are several databases here: {_listed(found)}.", remedy="Name the one you mean with --database."
        )
    return found[0]


def _listed(found: list[DatabasePaths]) -> str:
    return ", ".join(paths.name for paths in found) or "none"


def database_of(
    database: str | os.PathLike[str] | None, home: str | os.PathLike[str] | None, *, may_miss: bool = False
) -> DatabasePaths:
    """A database as programs name it: by its file, or by its name in a home; neither is needed where there is one."""
    if database is not None and is_file_name(database):
        return database_at(Path(database).absolute(), may_miss=may_miss)
    found = home_at(Path(home)) if home is not None else search_home(Path.cwd())
    return find_database(existing(found), None if database is None else str(database))

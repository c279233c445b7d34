"""The databases of a home as this machine's files show them, without asking the keeper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pondkeeper.errors import DatabaseNotFound, InvalidRequest
from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import DatabasePaths, Home, default_home

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
    if not is_flocked(paths.claim_lock):
        return None
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


def database_at(file: Path) -> DatabasePaths:
    """A database named by its file, with the home beside it."""
    if not file.is_file():
        raise DatabaseNotFound("There is no such database file.", private=str(file))
    return Home(default_home(file)).database(file)


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

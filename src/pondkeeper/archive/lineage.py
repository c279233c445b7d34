"""The lineage of a database: a name for its unbroken history. A restore in place and a promotion begin a new one.

It lies beside the snapshots, as `lineage.json`, and says with which version it began. Version numbers only grow, so a
number with another lineage is another history: replicas and archives tell the two apart by it.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.paths import DatabasePaths

_ID_BYTES = 8


class Lineage(msgspec.Struct, frozen=True):
    """`after`: the last version of the history before it; `before`: that history's id, where there was one."""

    id: str
    after: int = 0
    before: str = ""


def lineage_of(paths: DatabasePaths) -> Lineage:
    """The lineage of a database; one that has none yet gets it. Not on the event loop."""
    found = _read(_file(paths))
    return found or _write(paths, Lineage(secrets.token_hex(_ID_BYTES)))


def begin_lineage(paths: DatabasePaths, after: int) -> Lineage:
    """A new history begins behind version `after`; durable when this returns."""
    return _write(paths, Lineage(secrets.token_hex(_ID_BYTES), after, lineage_of(paths).id))


def adopt_lineage(paths: DatabasePaths, lineage: str) -> None:
    """This copy is of that history: a replica's, which is its primary's."""
    if lineage_of(paths).id != lineage:
        _write(paths, Lineage(lineage))


def _file(paths: DatabasePaths) -> Path:
    return paths.folder / "lineage.json"


def _read(file: Path) -> Lineage | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Lineage)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write(paths: DatabasePaths, lineage: Lineage) -> Lineage:
    make_folder(paths.folder)
    write_atomic(_file(paths), msgspec.json.encode(lineage))
    return lineage

"""The examination of a database's WAL: how much it has, and whether it is the file's own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

from pondkeeper.cli.doctor.finding import Finding, ok, problem, warning
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.engine.fileformat import read_headers
from pondkeeper.engine.walidentity import Belonging, belonging
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import OF_REPLACED, DatabasePaths

LARGE_WAL_BYTES: Final = 256 * 1024 * 1024
LOOKS: Final = 4
BETWEEN_LOOKS_S: Final = 0.1
_STALE: Final = {
    Belonging.ANOTHER: (
        "was written for another database; DuckDB refuses to open the file beside it",
        "Move it away (`mv {wal} {wal}.other`), to its own file if you have that: this one has all up to its last checkpoint.",
    ),
    Belonging.OLDER: (
        "is older than the file: what it has was taken into the file by a checkpoint; DuckDB refuses to open both",
        "Move it away (`mv {wal} {wal}.old`): nothing of the file's is in it.",
    ),
    Belonging.NEWER: (
        "is newer than the file, which is an older copy of its database; DuckDB refuses to open both",
        "Put the file back that it belongs to. If that is lost, move the WAL away: what was committed after the copy is lost.",
    ),
}


def examine(subject: str, paths: DatabasePaths) -> Finding:
    """The WAL of a database, as far as its bytes tell."""
    try:
        size = paths.wal.stat().st_size
        kind = _settled(paths)
    except FileNotFoundError:
        return ok(subject, "no WAL: everything committed is in the file")
    except OSError as error:
        return problem(subject, f"its WAL cannot be read: {error.strerror}", "Give this user read permission on it.")
    text = f"a WAL of {show_bytes(size)}"
    if kind in _STALE:
        what, remedy = _STALE[kind]
        return problem(subject, f"{text} {what}", remedy.format(wal=paths.wal.name))
    if size > LARGE_WAL_BYTES:
        remedy = "It is replayed at the next open, which takes a while; CHECKPOINT in the program that writes makes it short."
        return warning(subject, text, remedy)
    if kind is Belonging.FOLDED:
        return ok(subject, f"{text}, all of which is in the file already: the next open removes it")
    if kind is Belonging.UNKNOWN and size:
        return ok(subject, f"{text}: commits since the last checkpoint (this storage version does not say whose it is)")
    return ok(subject, f"{text}: commits since the last checkpoint")


def left_aside(subject: str, paths: DatabasePaths) -> Iterator[Finding]:
    """The WAL of a file that was replaced while a writer had it open: the writer put it aside."""
    aside = paths.wal.with_name(paths.wal.name + OF_REPLACED)
    if aside.exists():
        what = f"the file was replaced while it was being written, and commits to the old one are in {aside.name}"
        remedy = f"If you still need them, put the old file back with it as {paths.wal.name}; else remove it."
        yield warning(subject, what, remedy)


def _settled(paths: DatabasePaths) -> Belonging:
    """What the WAL is to its file. Looked at again when it seems stale: a checkpoint changes the one after the other."""
    for _ in range(LOOKS - 1):
        if (kind := _look(paths)) not in _STALE:
            return kind
        time.sleep(BETWEEN_LOOKS_S)
    return _look(paths)


def _look(paths: DatabasePaths) -> Belonging:
    try:
        # Trap: only a process that has no database open in DuckDB may read the file as bytes, as ours.
        descriptor = os.open(paths.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            headers = read_headers(descriptor)
        finally:
            os.close(descriptor)
    except PondkeeperError:  # what is wrong with the file is a finding of its own
        return Belonging.UNKNOWN
    return belonging(headers, paths.wal)

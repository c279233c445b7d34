"""The examination of a home: who may look into it, what runs in it, what lies around."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pondkeeper.cli.doctor.finding import Finding, ok, problem, warning
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.databases.sweeping import STALE_AFTER_S
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.local.known import keeper_of

SUBJECT: Final = "home"
LEAST_FREE_BYTES: Final = 256 * 1024 * 1024
NETWORK_FILE_SYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs"})
ASK_TIMEOUT_S: Final = 3.0


def examine(home: Home, databases: Iterable[DatabasePaths]) -> Iterator[Finding]:
    """Everything that can be said of a home."""
    yield _modes(home)
    yield from _keeper(home)
    yield from _left_behind(home)
    yield from _disks(home, list(databases))


def _modes(home: Home) -> Finding:
    """Keys and data of every database lie here: nobody else may look in."""
    open_to_others = [path.name for path in (home.root, home.control_db, home.socket) if _is_open_to_others(path)]
    if open_to_others:
        remedy = "chmod go-rwx what is named, and think about who may have read it."
        return problem(SUBJECT, f"other users can get at {', '.join(open_to_others)}", remedy)
    owner = home.root.stat().st_uid
    if owner != os.geteuid():
        remedy = "Run commands as that user; root's files in it may be out of reach for the keeper."
        return warning(SUBJECT, f"it belongs to another user (uid {owner})", remedy)
    return ok(SUBJECT, "it is open to its owner only")


def _is_open_to_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)


def _keeper(home: Home) -> Iterator[Finding]:
    keeper = keeper_of(home)
    if not keeper.running:
        yield ok("keeper", "no keeper is running here")
        if home.keeper_json.exists():
            yield ok("keeper", "the last one has left its keeper.json behind; the next one replaces it")
        return
    yield _answer(home, f"a keeper {keeper.version or ''} runs, pid {keeper.pid}, {keeper.url}".replace("  ", " "))


def _answer(home: Home, text: str) -> Finding:
    from pondkeeper.client import Client

    try:
        with Client.local(home.root, timeout_s=ASK_TIMEOUT_S, retry_for_s=0) as client:
            client.databases()
    except PondkeeperError as error:
        return problem("keeper", f"{text}, and does not answer: {error.message}", error.remedy)
    return ok("keeper", f"{text}, and answers")


def _left_behind(home: Home) -> Iterator[Finding]:
    stale = [path for path in _temp_files(home) if _is_old(path)]
    if stale and not keeper_of(home).running:
        size = show_bytes(sum(_size(path) for path in stale))
        remedy = "The next start of a keeper removes them."
        yield warning(SUBJECT, f"{len(stale)} temporary files of dead processes lie in it, {size}", remedy)


def _temp_files(home: Home) -> list[Path]:
    spilled = [path for path in home.temp.rglob("*") if path.is_file()] if home.temp.is_dir() else []
    return spilled + list(home.root.rglob(".*.tmp"))


def _is_old(path: Path) -> bool:
    try:
        return path.lstat().st_mtime < time.time() - STALE_AFTER_S
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _disks(home: Home, databases: list[DatabasePaths]) -> Iterator[Finding]:
    """Room for one more full copy of the largest database, and for its WAL."""
    largest = max((_size(paths.file) for paths in databases), default=0)
    needed = max(LEAST_FREE_BYTES, largest)
    for place in _places(home, databases):
        free = shutil.disk_usage(place).free
        text = f"{show_bytes(free)} free on the disk of {place}"
        remedy = f"Make room: a first snapshot is a whole copy, so {show_bytes(needed)} should be free."
        level = problem if free < LEAST_FREE_BYTES else warning
        yield ok("disk", text) if free >= needed else level("disk", text, remedy)
        kind = file_system_of(place)
        if kind in NETWORK_FILE_SYSTEMS:
            remedy = "Keep databases on a local disk: locks over a network do not keep two writers apart."
            yield warning("disk", f"{place} is on a network file system ({kind})", remedy)


def _places(home: Home, databases: list[DatabasePaths]) -> list[Path]:
    """One folder of each disk in use."""
    by_device = {
        path.stat().st_dev: path for path in (*(paths.file.parent for paths in databases), home.root) if path.is_dir()
    }
    return list(by_device.values())


def file_system_of(path: Path) -> str:
    """The kind of file system that a path lies on, as the kernel names it."""
    where, best, kind = os.path.realpath(path), "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind

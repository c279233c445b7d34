"""Tickets: places in the queue for a lease, first come first served among all programs of the machine.

A ticket is a file named by the boot clock, so that names sort by age, and flocked by its owner while it waits. The
flock is the truth: a ticket that another process can lock belongs to a dead program and is removed. What is written in
it (who waits, why, since when) is for people.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile, is_flocked

SUFFIX = ".ticket"
UNFINISHED = ".new"
SETTLED_NS = 100_000_000
_empty_at: dict[Path, int] = {}  # Why: the writer asks some times per write, and nearly always there is no ticket


@dataclass(frozen=True)
class Place:
    """Who waits for a lease, and why, and since when (ISO 8601, UTC; `asked_ns` on the clock of time.monotonic_ns)."""

    asked_ns: int
    pid: int
    who: str
    why: str
    since: str

    def describe(self) -> str:
        """For people: `dbt build (pid 4711), for: nightly build`."""
        return f"{self.who} (pid {self.pid})" + (f", for: {self.why}" if self.why else "")


class Ticket:
    """A place in the queue, held until `drop` or the death of this process.

    `asked_ns` (time.monotonic_ns) dates it back, for who hands on a wish that is older than his ticket.
    """

    def __init__(self, folder: Path, who: str, why: str, asked_ns: int | None = None) -> None:
        make_folder(folder)
        asked_ns = time.monotonic_ns() if asked_ns is None else asked_ns
        name = f"{asked_ns:020d}-{secrets.token_hex(6)}"
        # Trap: a ticket that is visible before it is locked looks like a dead program's, so it is locked under
        # another name first and then renamed.
        self._lock = FlockFile(folder / f".{name}{UNFINISHED}")
        if not self._lock.try_acquire():
            raise RuntimeError(f"the new ticket {name} is locked already")
        os.write(self._lock.fileno(), msgspec.json.encode(asdict(_place(who, why, asked_ns))))
        self._path = folder / (name + SUFFIX)
        self._lock.path.rename(self._path)

    def ahead(self) -> int:
        """How many living tickets are before this one; removes dead ones on the way."""
        return sum(1 for path in _tickets(self._path.parent) if path.name < self._path.name and _lives(path))

    def drop(self) -> None:
        """Leave the queue."""
        self._path.unlink(missing_ok=True)
        self._lock.release()


def _place(who: str, why: str, asked_ns: int) -> Place:
    waited = timedelta(microseconds=(time.monotonic_ns() - asked_ns) / 1000)
    return Place(asked_ns, os.getpid(), who, why, (datetime.now(UTC) - waited).isoformat(timespec="milliseconds"))


def waiting(folder: Path) -> list[Path]:
    """The living tickets of a queue, oldest first; dead ones are removed."""
    return [path for path in sorted(_tickets(folder)) if _lives(path)]


def places(folder: Path) -> list[Place]:
    """Who waits, in order."""
    return [place for path in waiting(folder) if (place := _read(path)) is not None]


def oldest_ns(folder: Path) -> int | None:
    """Since when the first in the queue waits, on the clock of time.monotonic_ns; None when nobody does."""
    changed_ns = _changed_ns(folder)
    if _empty_at.get(folder) == changed_ns:
        return None
    first = next((path for path in sorted(_tickets(folder)) if _lives(path)), None)
    # Trap: two changes in one tick of the kernel's clock leave one time, so a change of just now is not relied on.
    if first is None and time.time_ns() - changed_ns > SETTLED_NS:
        _empty_at[folder] = changed_ns
    return None if first is None else _asked_ns(first)


def _changed_ns(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0


def _asked_ns(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _read(path: Path) -> Place | None:
    """What a ticket says; None when its owner has just left."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        return Place(_asked_ns(path), -1, "a program of another version", "", "")


def _lives(path: Path) -> bool:
    if is_flocked(path):
        return True
    path.unlink(missing_ok=True)
    return False


def _tickets(folder: Path) -> list[Path]:
    """The tickets, in no order. Those that died before they were whole are removed."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []
    for path in entries:
        if path.suffix == UNFINISHED:
            _lives(path)  # Why harmless to a living one: it is locked before anything else is done with it.
    return [path for path in entries if path.suffix == SUFFIX]

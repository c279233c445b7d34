"""Tickets: places in the queue for a lease, first come first served among all programs of the machine.

A ticket is a file named by the boot clock, so that names sort by age, and flocked by its owner while it waits. The
flock is the truth: a ticket that another process can lock belongs to a dead program and is removed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile, is_flocked

SUFFIX = ".ticket"


class Ticket:
    """A place in the queue, held until `drop` or the death of this process."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        name = f"{time.monotonic_ns():020d}-{os.getpid()}"
        # Trap: a ticket that is visible before it is locked looks like a dead program's, so it is locked under
        # another name first and then renamed.
        self._lock = FlockFile(folder / f".{name}.new")
        if not self._lock.try_acquire():
            raise RuntimeError(f"the new ticket {name} is locked already")
        self._path = folder / (name + SUFFIX)
        self._lock.path.rename(self._path)

    def ahead(self) -> int:
        """How many living tickets are before this one; removes dead ones on the way."""
        return sum(1 for path in waiting(self._path.parent) if path.name < self._path.name)

    def drop(self) -> None:
        """Leave the queue."""
        self._path.unlink(missing_ok=True)
        self._lock.release()


def waiting(folder: Path) -> list[Path]:
    """The living tickets of a queue, oldest first; dead ones are removed."""
    living = []
    for path in sorted(_tickets(folder)):
        if is_flocked(path):
            living.append(path)
        else:
            path.unlink(missing_ok=True)
    return living


def _tickets(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []

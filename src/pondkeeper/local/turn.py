"""Taking the turn: the lease, and then nobody else who has the file open."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pondkeeper.errors import DatabaseBusy, DatabaseIsReplica
from pondkeeper.files.locks import LockHolder, holders_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.lease import KEEPER, Holder, Lease, OnWait

POLL_S = 0.1
LOOKS = 3
QUIET_FOR_KEEPER_S = 2.0

Tell = Callable[[str], None]


def take_turn(
    lease: Lease,
    paths: DatabasePaths,
    wait_s: float,
    tell: Tell = lambda text: None,
    *,
    on_wait: OnWait = lambda holder, ahead: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Take the lease, then wait until no program that did not ask has the file open either.

    `tell` is told who is waited for, at once and whenever that changes; `on_wait` gets the same as data. Raises
    DatabaseBusy, which names him (also soon after `is_cancelled` says so), or DatabaseIsReplica.
    """
    refuse_replica(paths)
    deadline = time.monotonic() + wait_s
    teller = _Teller(tell)

    def waits(holder: Holder | None, ahead: int) -> None:
        teller.tell(holder, ahead)
        on_wait(holder, ahead)

    lease.acquire(wait_s, waits, is_cancelled)
    try:
        refuse_if_open_here(paths)
        for holder in _strangers(paths, deadline, wait_s, tell, is_cancelled):
            on_wait(Holder(holder.pid, holder.program, "has the file open without having asked", "", ""), 0)
    except BaseException:  # Why: also when interrupted, nobody may wait for a lease that is not used.
        lease.release()
        raise


def refuse_replica(paths: DatabasePaths) -> None:
    """Raises DatabaseIsReplica where a keeper follows another one: a file that a program made would be in the way."""
    if paths.file.exists():
        return
    try:
        primary = str(json.loads(paths.replica_json.read_bytes())["of"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise DatabaseIsReplica(f"Database {paths.name!r} is a replica of {primary}; it is written there.", primary=primary)


class _Teller:
    """Says who is waited for, when that changes.

    The keeper's writer is not worth a word for two seconds: it gives the file back when it is idle.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = ""
        self._quiet_until = time.monotonic() + QUIET_FOR_KEEPER_S

    def tell(self, holder: Holder | None, ahead: int) -> None:
        if holder is not None and holder.who == KEEPER and time.monotonic() < self._quiet_until:
            return
        who = holder.describe() if holder else "the queue to move on"
        text = f"waiting for {who}; place {ahead + 1} in line"
        if text != self._told:
            self._told = text
            self._tell(text)


def _strangers(
    paths: DatabasePaths, deadline: float, wait_s: float, tell: Tell, is_cancelled: Callable[[], bool]
) -> Iterator[LockHolder]:
    """Wait until no program has the file open; each that has, as it becomes the one that is waited for."""
    told: LockHolder | None = None
    while strangers := strangers_of(paths):
        holder = strangers[0]
        if time.monotonic() >= deadline or is_cancelled():
            raise DatabaseBusy(
                f"{holder.program} (pid {holder.pid}) has the database open without having asked for the lease, "
                f"and did not close it within {wait_s:g} s.",
                holder_pid=holder.pid,
                holder_program=holder.program,
            )
        if holder != told:
            told = holder
            tell(f"waiting for {holder.program} (pid {holder.pid}), which has the database open without having asked")
            yield holder
        time.sleep(POLL_S)


_taken_away: set[Path] = set()
"""Files that the parent had open when this process was forked: DuckDB's instance of them is still here."""


def refuse_if_open_here(paths: DatabasePaths) -> None:
    """Raise DatabaseBusy when this process itself has the database open.

    Trap: a second connect shares DuckDB's instance. In a forked child that is the parent's, as it was at the fork and
    without its lock: what the parent has committed since would be overwritten.
    """
    if paths.file in _taken_away or is_open_here(paths.file):
        raise DatabaseBusy(
            "This process has the database open already, or was forked from one that had.",
            remedy="Close that connection first; start processes by spawn, not by fork, while one is open.",
        )


def is_open_here(file: Path) -> bool:
    """Whether this process has a descriptor of the file, its own or inherited. Opens nothing (the lock trap)."""
    return bool(_descriptors_of(file))


def _descriptors_of(*files: Path) -> list[int]:
    wanted = set()
    for file in files:
        with suppress(FileNotFoundError):
            wanted.add((file.stat().st_dev, file.stat().st_ino))
    found = []
    for number in os.listdir("/proc/self/fd") if wanted else ():
        with suppress(OSError):  # it was the descriptor of this very listing, or another thread has closed it
            status = os.stat(f"/proc/self/fd/{number}")
            if (status.st_dev, status.st_ino) in wanted:
                found.append(int(number))
    return found


def take_away(*files: Path) -> None:
    """In a forked child: what it inherited of these files leads nowhere from now on, so that using it is an error.

    Why not closed: DuckDB would use the number for whatever is opened next.
    """
    _taken_away.update(files)
    nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor in _descriptors_of(*files):
        os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def strangers_of(paths: DatabasePaths) -> list[LockHolder]:
    """Who has the database open in DuckDB.

    Trap: on a busy machine one look at the kernel's table of locks may miss one that is there (see engine/holding.py).
    """
    for _ in range(LOOKS):
        if found := [holder for holder in holders_of(paths.file) if holder.kind == "posix"]:
            return found
    return []

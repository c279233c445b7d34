"""Taking the turn: the lease, and then nobody else who has the file open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pondkeeper.errors import DatabaseBusy
from pondkeeper.files.locks import LockHolder, holders_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.lease import KEEPER, Holder, Lease

POLL_S = 0.1
QUIET_FOR_KEEPER_S = 2.0

Tell = Callable[[str], None]


def take_turn(lease: Lease, paths: DatabasePaths, wait_s: float, tell: Tell = lambda text: None) -> None:
    """Take the lease, then wait until no program that did not ask has the file open either.

    `tell` is told who is waited for, at once and whenever that changes. Raises DatabaseBusy, which names him.
    """
    deadline = time.monotonic() + wait_s
    lease.acquire(wait_s, on_wait=_Teller(tell).tell)
    try:
        _wait_for_strangers(paths, deadline, wait_s, tell)
    except BaseException:  # Why: also when interrupted, nobody may wait for a lease that is not used.
        lease.release()
        raise


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


def _wait_for_strangers(paths: DatabasePaths, deadline: float, wait_s: float, tell: Tell) -> None:
    told: LockHolder | None = None
    while strangers := strangers_of(paths):
        holder = strangers[0]
        if holder.pid == os.getpid():
            # Trap: waiting would be for ever, and a second connect would share the first one's instance.
            raise DatabaseBusy("This process has the database open already.", remedy="Close that connection first.")
        if time.monotonic() >= deadline:
            raise DatabaseBusy(
                f"{holder.program} (pid {holder.pid}) has the database open without having asked for the lease, "
                f"and did not close it within {wait_s:g} s.",
                holder_pid=holder.pid,
                holder_program=holder.program,
            )
        if holder != told:
            told = holder
            tell(f"waiting for {holder.program} (pid {holder.pid}), which has the database open without having asked")
        time.sleep(POLL_S)


def strangers_of(paths: DatabasePaths) -> list[LockHolder]:
    """Who has the database open in DuckDB."""
    return [holder for holder in holders_of(paths.file) if holder.kind == "posix"]

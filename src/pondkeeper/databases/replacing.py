"""Replacing the file of a served database: in the keeper's turn, while readers go on with the newest snapshot."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pondkeeper.errors import DatabaseBusy, PondkeeperError, QueryCancelled
from pondkeeper.files import swapping
from pondkeeper.files.locks import FlockFile, holders_of
from pondkeeper.snapshots.target import disk_errors
from pondkeeper.writer.lease import Lease

if TYPE_CHECKING:
    from pondkeeper.databases.database import Database
    from pondkeeper.databases.requests import SnapshotInfo
    from pondkeeper.files.paths import DatabasePaths

KEPT = ("restore", "undo")
POLL_S = 0.05
PRESENT_TIMEOUT_S = 10.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Replacing:
    """How long may be waited for the turn and for the new snapshot, and who is to know.

    `keep(version)`: what is replaced is in this version. `begin(version)`: the last of the old file; called before
    anything is changed, on a thread.
    """

    wait_s: float
    publish_s: float
    begin: Callable[[int], object]
    keep: Callable[[int], Awaitable[object]]


def end_swaps(paths: DatabasePaths) -> None:
    """End what a dead keeper or program has begun, before anybody opens the file; remove what was only prepared."""
    with FlockFile(paths.lease_lock) as lease:
        # Why only if nobody has it: who takes a lease has ended what was to be ended.
        if lease.try_acquire() and (swap := swapping.finish(paths)) is not None:
            _log.warning("a replacement of the database was ended that was under way", why=swap.why, id=swap.id)
    swapping.tidy(paths)


async def replace(database: Database, preparing: swapping.Preparing, replacing: Replacing) -> SnapshotInfo:
    """Put the prepared file in the database's place and publish it; the snapshot that has it.

    Waits for the turn as any program does; nothing has happened when that raises DatabaseBusy.
    """
    try:  # Why: what is committed now is a version of its own, and so of the archive, before it is replaced.
        present = await database.take_snapshot(PRESENT_TIMEOUT_S, only_changes=True)
        await replacing.keep(present.version)
    except PondkeeperError as error:  # a damaged or lost file is a reason to replace it
        _log.info("what is replaced could not be published", database=database.name, error=error.to_wire())
    desk = database.queue.desk
    swapper = _Swapper(database, preparing, lambda: replacing.begin(desk.next_version - 1), replacing.wait_s)
    work = asyncio.create_task(asyncio.to_thread(swapper.run))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        swapper.gives_up.set()
        await asyncio.wait({work})
        raise
    desk.others_changed_it = True
    return await database.take_snapshot(replacing.publish_s, only_changes=True)


class _Swapper:
    """The turn, on a thread of its own."""

    def __init__(
        self, database: Database, preparing: swapping.Preparing, begin: Callable[[], object], wait_s: float
    ) -> None:
        self.gives_up = threading.Event()
        self._paths = database.paths
        self._is_copying: Callable[[], bool] = lambda: database.queue.desk.is_copying
        self._preparing = preparing
        self._begin = begin
        self._wait_s = wait_s

    def run(self) -> None:
        """Take the lease, swap, give it back."""
        why = f"{self._preparing.swap.why} of the database"
        lease = Lease(self._paths, who="keeper (restorer)", why=why)
        deadline = time.monotonic() + self._wait_s
        lease.acquire(self._wait_s, is_cancelled=self.gives_up.is_set)
        try:
            self._wait_until_alone(deadline)
            with disk_errors():
                self._begin()
                self._preparing.carry_out()
                swapping.forget(self._paths, *KEPT, keep=1)
        finally:
            lease.release()

    def _wait_until_alone(self, deadline: float) -> None:
        """Until no program has the file open, asked or not, and no copier reads what a dead writer has left."""
        while True:
            strangers = [holder for holder in holders_of(self._paths.file) if holder.kind == "posix"]
            if not strangers and not self._is_copying():
                return
            if self.gives_up.is_set():
                raise QueryCancelled("The restore was given up before anything was changed.")
            if time.monotonic() >= deadline:
                who = f"{strangers[0].program} (pid {strangers[0].pid})" if strangers else "the copier"
                raise DatabaseBusy(f"{who} has the database open, and did not close it in time.")
            time.sleep(POLL_S)

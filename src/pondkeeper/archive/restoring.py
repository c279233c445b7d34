"""Restoring a served database in place, and undoing it: fetched and proved first, then swapped in the keeper's turn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from pondkeeper.archive.copies import Past, fetch, prove
from pondkeeper.archive.desk import ArchiverDesk
from pondkeeper.archive.lineage import begin_lineage
from pondkeeper.databases.database import Database
from pondkeeper.databases.events import EventHub
from pondkeeper.databases.replacing import KEPT, Replacing, replace
from pondkeeper.errors import DatabaseBusy, PondkeeperError
from pondkeeper.files import swapping
from pondkeeper.settings import Settings
from pondkeeper.snapshots.holding import Wanted
from pondkeeper.snapshots.target import disk_errors
from pondkeeper.workers.alone import GivenUp

KEEP_TIMEOUT_S = 60.0
Prepared = tuple[swapping.Preparing, dict[str, Any]]
Prepare = Callable[[GivenUp], Prepared]
_log = structlog.get_logger(__name__)


class Restorations:
    """The restores of one keeper: one at a time for each database."""

    def __init__(self, settings: Settings, archiver: ArchiverDesk | None, events: EventHub) -> None:
        self._settings = settings
        self._events = events
        self._archiver = archiver
        self._under_way: set[str] = set()

    async def restore(self, database: Database, past: Past, wanted: Wanted) -> dict[str, Any]:
        """Make the database what it was. Raises VersionNotArchived, DatabaseBusy, ArchiveDamaged and more: then nothing
        has happened. Readers go on with the newest snapshot until the restored one is published.
        """
        return await self._alone(database, partial(_prepare_restore, past, wanted, self._settings))

    async def undo(self, database: Database) -> dict[str, Any]:
        """Put back what the last restore, or undo, has replaced. Raises InvalidRequest when nothing is kept."""
        return await self._alone(database, partial(_prepare_undo, database))

    async def _alone(self, database: Database, prepare: Prepare) -> dict[str, Any]:
        if database.name in self._under_way:
            raise DatabaseBusy(f"Database {database.name!r} is being restored already.")
        self._under_way.add(database.name)
        try:
            return await self._replace(database, prepare)
        finally:
            self._under_way.discard(database.name)

    async def _replace(self, database: Database, prepare: Prepare) -> dict[str, Any]:
        began_at = time.monotonic()
        preparing, made = await _prepared(prepare)
        writer = self._settings.writer
        try:
            begin, keep = partial(begin_lineage, database.paths), partial(self._keep, database.name)
            published = await replace(database, preparing, Replacing(writer.wait_s, writer.timeout_s, begin, keep))
        finally:
            await asyncio.to_thread(preparing.discard)  # of a swap that was carried out nothing is left to discard
        elapsed_s, why = time.monotonic() - began_at, preparing.swap.why
        database.counters.restored(elapsed_s)
        self._events.emit(
            "restored",
            database.name,
            version=published.version,
            why=why,
            restored=made.get("version"),
            source=made.get("source"),
            elapsed_ms=round(elapsed_s * 1000, 1),
        )
        _log.info("restored", database=database.name, why=why, published=published.version, **made)
        return {"published": published.version, "restored": made}

    async def _keep(self, name: str, version: int) -> None:
        """Have what is replaced in the archive: it may be what somebody wants back in a week."""
        if self._archiver is None or not self._archiver.is_on:
            return
        try:
            async with asyncio.timeout(KEEP_TIMEOUT_S):
                await self._archiver.now(name, version)
        except (TimeoutError, PondkeeperError) as error:
            _log.warning("what is replaced is not in the archive", database=name, version=version, error=str(error))


async def _prepared(prepare: Prepare) -> Prepared:
    """What the thread has prepared; discarded when nobody waits for it any more."""
    gives_up = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(prepare, gives_up.is_set))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        gives_up.set()
        work.add_done_callback(_discard)
        raise


def _discard(work: asyncio.Task[Prepared]) -> None:
    if not work.cancelled() and work.exception() is None:
        work.result()[0].discard()


def _prepare_restore(past: Past, wanted: Wanted, settings: Settings, is_given_up: GivenUp) -> Prepared:
    with disk_errors():
        preparing = swapping.Preparing(past.paths, "restore")
    try:
        made = fetch(past, wanted, preparing.file, is_given_up=is_given_up)
        made |= {"tables": prove(preparing.file, settings, is_given_up=is_given_up)["tables"]}
    except BaseException:  # Why: whatever ended it, the half-made file is of no use.
        preparing.discard()
        raise
    preparing.swap.about.update(made)
    return preparing, made


def _prepare_undo(database: Database, is_given_up: GivenUp) -> Prepared:  # noqa: ARG001  # Why: as the other; it takes no time
    with disk_errors():
        preparing = swapping.prepare_undo(database.paths, *KEPT)
    return preparing, {"undone": preparing.swap.about["undone"]}

"""`wait=accepted` for one database: what is taken in, what is seen of it, and the drain that applies it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.databases.draining import CLIENT, Drain, Outside
from pondkeeper.databases.requests import IngestOutcome, IngestRequest
from pondkeeper.databases.running import RunningQueries
from pondkeeper.errors import BodyNotKept, OutcomeUnknown, PondkeeperError, QueryCancelled
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.settings import Settings
from pondkeeper.writer.queue import WriteQueue
from pondkeeper.writer.spool.log import Header
from pondkeeper.writer.spool.spool import Spool, SpoolLimits
from pondkeeper.writer.spool.tickets import Seen

SMALL_BYTES = 64 * 1024


class Spooling:
    """The accepted ingests of one database. Needs nothing of its file: accepting goes on whatever becomes of that."""

    def __init__(
        self,
        paths: DatabasePaths,
        settings: Settings,
        running: RunningQueries,
        ingest: Callable[[IngestRequest], Awaitable[IngestOutcome]],
        quiet: Callable[[], int | None],
        queue: Callable[[], WriteQueue],
    ) -> None:
        self._paths = paths
        self._running = running
        bounds = settings.spool
        limits = SpoolLimits(
            bounds.max_bytes,
            bounds.max_entries,
            settings.writer.idempotency_keep_s,
            bounds.refused_keep_s,
            bounds.refused_max_bytes,
        )
        self._spool = Spool(paths.spool, paths.incoming, limits)
        self._queue = queue
        outside = Outside(paths.incoming, ingest, self._stop_load, quiet, self._may_forget)
        self._drain = Drain(self._spool, outside, settings.ingest.timeout_s)

    async def run(self) -> None:
        """Go on with what an earlier keeper has left, and apply whatever comes, until cancelled."""
        # Why: the last keeper may have ended between a commit and its note, and the key must be there when it is asked for.
        self._may_forget(False)
        await self._drain.run()

    async def stop(self) -> None:
        """Accept nothing more."""
        await self._spool.close()

    async def accept(self, request: IngestRequest, small: bytes | None = None) -> str:
        """Take an ingest in: its ticket. Durable when this returns; raises as `Spool.accept`.

        `small`: the body itself, at most SMALL_BYTES. Else `request.body` is a finished file, which is ours if this returns.
        """
        if small is not None:
            if request.body_digest is None:
                request = replace(request, body_digest=hashlib.sha256(small).hexdigest())
            return await self._spool.accept(_header(request), small)
        header = await asyncio.to_thread(_filed_header, request)
        return await self._spool.accept(header)

    async def ticket(self, ticket: str, wait_s: float = 0.0) -> Seen:
        """One ticket; waits at most so long for its outcome. Raises TicketNotFound."""
        return await self._spool.outcome(ticket, wait_s)

    async def tickets(self, *, waiting: int, settled: int) -> list[Seen]:
        """The first that wait, in their order, and the youngest with an outcome: at most so many of each."""
        tickets = self._spool.tickets
        return [*await tickets.waiting(waiting), *await tickets.settled(settled)]

    async def take_back(self, ticket: str) -> None:
        """Cancel a ticket that is not applied. Raises TicketNotFound or TicketNotWaiting."""
        await self._drain.take_back(ticket)

    async def refused(self, ticket: str) -> tuple[Header, Path]:
        """The body of a refused ticket, and what it is. Raises BodyNotKept."""
        found = await asyncio.to_thread(self._spool.kept.body_of, ticket)
        return found.header, self._spool.kept.path(ticket)

    async def retry(self, ticket: str, key_id: str | None, client: str | None) -> str:
        """Take the body of a refused ticket in again, as it was sent: its new ticket, the same however often this is asked.

        Raises BodyNotKept, and as `accept`.
        """
        kept = self._spool.kept
        try:
            found = await asyncio.to_thread(kept.body_of, ticket)
        except BodyNotKept as gone:
            if (retried_as := gone.details.get("retried_as")) is not None:
                return str(retried_as)
            raise
        # Why that key: a keeper that ends before it has noted the retry accepts it again, and it is the same ticket.
        header = msgspec.structs.replace(
            found.header, key=f"retry:{ticket}", key_id=key_id, client=client, accepted_at=time.time(), file=None, size_bytes=0
        )
        new_ticket = await self._accepted_again(ticket, header, found.size_bytes)
        await asyncio.to_thread(kept.retried, ticket, found, new_ticket)
        return new_ticket

    async def _accepted_again(self, ticket: str, header: Header, size_bytes: int) -> str:
        kept = self._spool.kept
        if header.body_digest is None:
            return await self._spool.accept(header, await asyncio.to_thread(kept.path(ticket).read_bytes))
        name = f"retry-{secrets.token_hex(8)}"
        await asyncio.to_thread(kept.lend, ticket, name)
        try:
            return await self._spool.accept(msgspec.structs.replace(header, file=name, size_bytes=size_bytes))
        except OutcomeUnknown:  # Why it stays: it may have been accepted, and needs its body then.
            raise
        except PondkeeperError:
            await asyncio.to_thread((self._paths.incoming / name).unlink, missing_ok=True)
            raise

    def describe(self) -> dict[str, Any]:
        """The spool in numbers, and what keeps it from being applied; from memory."""
        described = self._spool.describe()
        if described["problem"] is None and self._drain.problem is not None:
            described["problem"] = self._drain.problem.to_wire()
        return described

    def _may_forget(self, yes: bool) -> None:
        self._queue().may_forget = yes

    def _stop_load(self) -> None:
        for entry in self._running.list():
            if entry["client"] == CLIENT and entry["database"] == self._paths.name:
                self._running.find(entry["id"]).stop(QueryCancelled("A ticket was taken back."))


def _filed_header(request: IngestRequest) -> Header:
    body_digest = request.body_digest
    if body_digest is None:
        with request.body.open("rb") as file:
            body_digest = hashlib.file_digest(file, "sha256").hexdigest()
    size_bytes = request.body.stat().st_size
    return _header(replace(request, body_digest=body_digest), file=request.body.name, size_bytes=size_bytes)


def _header(request: IngestRequest, *, file: str | None = None, size_bytes: int = 0) -> Header:
    return Header(
        table=request.table,
        format=request.format,
        digest=request.digest(),
        accepted_at=time.time(),
        schema=request.schema,
        mode=request.mode,
        keys=request.keys,
        create=request.create,
        evolve=request.evolve,
        on_error=request.on_error,
        priority=request.priority,
        key_id=request.key_id,
        client=request.client,
        key=request.idempotency_key,
        file=file,
        size_bytes=size_bytes,
        body_digest=request.body_digest if file is not None else None,
        delimiter=request.delimiter,
        has_header=request.has_header,
    )

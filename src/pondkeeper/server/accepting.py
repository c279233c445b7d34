"""`wait=accepted`: the body is made durable in the spool, and the answer is a ticket."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from pondkeeper.databases.ingesting import body_path
from pondkeeper.databases.spooling import SMALL_BYTES
from pondkeeper.errors import DatabaseUnavailable, OutcomeUnknown, PondkeeperError, WriteTimedOut
from pondkeeper.server.answers import Answer
from pondkeeper.server.bodies import tightest
from pondkeeper.server.receiving import receive_body
from pondkeeper.server.scopes import caller_of, client_of, entry_of, exchange_of

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope

    from pondkeeper.databases.database import Database
    from pondkeeper.databases.requests import IngestRequest
    from pondkeeper.server.context import Context
    from pondkeeper.server.ingest_options import IngestOptions


async def accept(
    context: Context, database: Database, options: IngestOptions, key: str | None, scope: Scope, receive: Receive
) -> Answer:
    """202 with the ticket: the rows are on disk, and will be applied in their order, once.

    Raises SpoolFull, DiskFull, SpoolUnavailable, IdempotencyConflict (nothing was accepted) or OutcomeUnknown.
    """
    try:
        ticket = await _accepted(context, database, options, key, scope, receive)
    except PondkeeperError as error:
        context.meters.ingest(error.code)
        raise
    context.meters.ingest("accepted")
    return accepted_answer(database, ticket)


def longest_s(context: Context, database: Database, scope: Scope) -> float:
    """The most that an ingest of this key may take: the server's time, or its own where that is shorter."""
    allowed = context.limits.own_timeout_s(caller_of(scope), database.name)
    return tightest(allowed, context.settings.ingest.timeout_s)


def accepted_answer(database: Database, ticket: str) -> Answer:
    """202 with a ticket, and where it is to be seen."""
    answer = Answer({"outcome": "accepted", "ticket": ticket}, status=202)
    place = f"/v1/databases/{quote(database.name, safe='')}/tickets/{ticket}"
    answer.raw_headers.append((b"location", place.encode("ascii")))
    return answer


async def _accepted(
    context: Context, database: Database, options: IngestOptions, key: str | None, scope: Scope, receive: Receive
) -> str:
    limits = context.settings.ingest
    timeout_s = tightest(options.timeout_s, longest_s(context, database, scope))
    if (exchange := exchange_of(scope)) is not None:
        exchange.max_body_bytes = limits.max_body_bytes
    path = body_path(database.paths)
    try:
        async with asyncio.timeout(timeout_s):
            received = await receive_body(
                scope, receive, path, max_bytes=limits.max_body_bytes, small_bytes=SMALL_BYTES, wants_digest=True
            )
    except TimeoutError:
        message = f"The body did not arrive within {timeout_s:g} s."
        raise WriteTimedOut(message, remedy="Send it faster, in pieces, or with a longer timeout_s.") from None
    who = {"key_id": caller_of(scope).id, "client": client_of(scope), "idempotency_key": key}
    if received.small is not None:
        body_digest = hashlib.sha256(received.small).hexdigest()
        request = options.request(path, timeout_s, **who, body_digest=body_digest)
        _note(scope, request)
        return await database.spooling.accept(request, received.small)
    body = await asyncio.to_thread(_finished, path)
    request = options.request(body, timeout_s, **who, body_digest=received.sha256)
    _note(scope, request)
    try:
        return await database.spooling.accept(request)
    except OutcomeUnknown:  # Why not removed: it may be accepted after all, and then needs its body.
        raise
    except PondkeeperError:
        await asyncio.to_thread(body.unlink, missing_ok=True)
        raise


def _note(scope: Scope, request: IngestRequest) -> None:
    """For the audit: what was asked; its outcome is the ticket's."""
    entry = entry_of(scope)
    entry.sql, entry.outcome = request.title, "accepted"


def _finished(path: Path) -> Path:
    """The body under a name that a keeper which starts does not take for half a body."""
    finished = path.with_suffix("")
    try:
        path.rename(finished)
    except OSError as error:
        raise DatabaseUnavailable("The body could not be kept on the keeper's disk.", private=str(error)) from error
    return finished

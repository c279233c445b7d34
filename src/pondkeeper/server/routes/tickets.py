"""Tickets of accepted ingests: GET …/tickets, GET, DELETE …/tickets/{id}; of refused ones GET …/body and POST …/retry."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse

from pondkeeper.access.authorize import Action, is_allowed
from pondkeeper.access.keys import Key
from pondkeeper.databases.database import Database
from pondkeeper.errors import TicketNotFound
from pondkeeper.server.accepting import accepted_answer
from pondkeeper.server.answers import Answer
from pondkeeper.server.context import Context
from pondkeeper.server.openapi import gives
from pondkeeper.server.problems import NO_STORE
from pondkeeper.server.scopes import caller_of, client_of
from pondkeeper.server.shapes import TicketAccepted, TicketList, TicketShown
from pondkeeper.writer.spool.tickets import Seen

MAX_LISTED = 1000
_BINARY: Final = {"type": "string", "format": "binary"}
_TYPES: Final = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
MAX_WAIT_S = 60.0
Listed = Annotated[int, Query(ge=0, le=MAX_LISTED)]


def make_router(context: Context) -> APIRouter:
    """The routes of tickets."""
    router = APIRouter(tags=["tickets"])
    _add_list(router, context)
    _add_one(router, context)
    _add_refused(router, context)
    return router


def _add_list(router: APIRouter, context: Context) -> None:
    @router.get(
        "/v1/databases/{name}/tickets",
        summary="Accepted ingests",
        response_model=None,
        responses=gives(TicketList, "Those that wait, in their order, then those with an outcome, the youngest first."),
    )
    async def list_tickets(request: Request, name: str, waiting: Listed = 100, settled: Listed = 100) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """One's own, and to an administrator those of others; at most `waiting` and `settled` of them are looked at."""
        database = context.database(request.scope, Action.TICKETS)
        key = caller_of(request.scope)
        seen = await database.spooling.tickets(waiting=waiting, settled=settled)
        shown = [each.describe() for each in seen if _may_see(key, each, database)]
        return Answer({"tickets": shown, "spool": database.spooling.describe()})


def _add_one(router: APIRouter, context: Context) -> None:
    @router.get(
        "/v1/databases/{name}/tickets/{id}",
        summary="What became of an accepted ingest",
        response_model=None,
        responses=gives(TicketShown, "It waits, at this place; or it was committed, refused or cancelled."),
    )
    async def get_ticket(
        request: Request,
        name: str,  # noqa: ARG001  # Why: FastAPI documents it
        id: str,  # noqa: A002  # Why: the name in the path
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Wait at most so long for an outcome.")] = 0.0,
    ) -> Answer:
        """waiting (its place, and who has the database), committed (version, rows), refused (error) or cancelled."""
        database = context.database(request.scope, Action.TICKETS)
        seen = await _found(database, id, caller_of(request.scope))
        if wait_s and seen.settled is None:
            seen = await database.spooling.ticket(id, wait_s)
        return Answer(_shown(database, seen))

    @router.delete(
        "/v1/databases/{name}/tickets/{id}",
        summary="Take back an accepted ingest",
        response_model=None,
        responses=gives(TicketShown, "It is cancelled and will not be applied."),
    )
    async def cancel_ticket(request: Request, name: str, id: str) -> Answer:  # noqa: A002, ARG001  # Why: as above
        """Cancel one that waits; one that has its outcome already keeps it (409)."""
        database = context.database(request.scope, Action.TICKETS)
        await _found(database, id, caller_of(request.scope))
        await database.spooling.take_back(id)
        return Answer(_shown(database, await database.spooling.ticket(id)))


def _add_refused(router: APIRouter, context: Context) -> None:
    @router.get(
        "/v1/databases/{name}/tickets/{id}/body",
        summary="The body of a refused ingest",
        response_model=None,
        responses={200: {"description": "As it was sent.", "content": {"application/octet-stream": {"schema": _BINARY}}}},
    )
    async def get_body(request: Request, name: str, id: str) -> FileResponse:  # noqa: A002, ARG001  # Why: as above
        """What was sent, to be looked at; kept for `spool.refused_keep_s`."""
        database = context.database(request.scope, Action.TICKETS)
        await _found(database, id, caller_of(request.scope))
        header, path = await database.spooling.refused(id)
        response = FileResponse(path, media_type=_TYPES.get(header.format, "application/octet-stream"))
        response.raw_headers.append(NO_STORE)
        return response

    @router.post(
        "/v1/databases/{name}/tickets/{id}/retry",
        summary="Accept a refused ingest again",
        response_model=None,
        responses=gives(TicketAccepted, "It waits again, behind all others, with a new ticket.", 202),
    )
    async def retry_ticket(request: Request, name: str, id: str) -> Answer:  # noqa: A002, ARG001  # Why: as above
        """The same body with the same options, when what it was refused for is gone. Asked again, the ticket is the same."""
        database = context.database(request.scope, Action.TICKETS)
        key = caller_of(request.scope)
        await _found(database, id, key)
        return accepted_answer(database, await database.spooling.retry(id, key.id, client_of(request.scope)))


async def _found(database: Database, ticket: str, key: Key) -> Seen:
    """The ticket, for a key that may see it. Raises TicketNotFound."""
    seen = await database.spooling.ticket(ticket)
    if not _may_see(key, seen, database):
        raise TicketNotFound
    return seen


def _may_see(key: Key, seen: Seen, database: Database) -> bool:
    return seen.key_id == key.id or is_allowed(key, Action.QUERY_SEE_OTHERS, database.name)


def _shown(database: Database, seen: Seen) -> dict[str, Any]:
    shown = seen.describe()
    if seen.settled is None:
        status = database.status()
        shown["holder"], shown["problem"] = status["lease"]["holder"], database.spooling.describe()["problem"]
    return shown

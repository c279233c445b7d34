"""Ingests: POST …/tables/{table}/rows; and the rows that they did not take: GET …/rejects, GET …/rejects/{id}."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from pondkeeper.access.authorize import Action
from pondkeeper.databases.ingesting import body_path
from pondkeeper.databases.requests import IngestOutcome, IngestRequest
from pondkeeper.errors import PondkeeperError, RejectsNotFound, WriteTimedOut
from pondkeeper.server.accepting import accept, longest_s
from pondkeeper.server.answers import Answer, Direct
from pondkeeper.server.bodies import check_content_encoding, tightest
from pondkeeper.server.context import Context
from pondkeeper.server.finishing import Finishing
from pondkeeper.server.ingest_options import CONTENT_TYPES, MODES, ON_ERRORS, PRIORITIES, WAITS, IngestOptions
from pondkeeper.server.openapi import gives
from pondkeeper.server.problems import NO_STORE
from pondkeeper.server.receiving import Received, receive_body
from pondkeeper.server.routes.executes import KEY_PARAMETER, idempotency_key
from pondkeeper.server.scopes import caller_of, client_of, entry_of, exchange_of
from pondkeeper.server.shapes import IngestAnswer, RejectsList

if TYPE_CHECKING:
    from pondkeeper.databases.database import Database
    from pondkeeper.server.exchange import Exchange

REJECTS_NAME: Final = re.compile(r"r_[0-9a-f]{16}\Z")


class IngestHandler:
    """POST …/rows, plain ASGI: the body goes to a file, the file to the database."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._limits = context.settings.ingest
        self._ingests = Finishing[IngestOutcome]("ingest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out one ingest."""
        database = self._context.database(scope, Action.INGEST)
        options = IngestOptions.of(scope)
        key = idempotency_key(scope)
        check_content_encoding(scope)
        if options.wait == "accepted":
            answer = await accept(self._context, database, options, key, scope, receive)
        else:
            answer = await self._committed(database, options, key, scope, receive)
        await answer(scope, receive, send)

    async def _committed(
        self, database: Database, options: IngestOptions, key: str | None, scope: Scope, receive: Receive
    ) -> Answer:
        loop = asyncio.get_running_loop()
        timeout_s = tightest(options.timeout_s, longest_s(self._context, database, scope))
        deadline = loop.time() + timeout_s
        received = await self._received(database, scope, receive, timeout_s, wants_digest=key is not None)
        assert received.path is not None
        try:
            left_s = max(0.001, deadline - loop.time())
            request = options.request(
                received.path,
                left_s,
                key_id=caller_of(scope).id,
                client=client_of(scope),
                idempotency_key=key,
                body_digest=received.sha256,
            )
            entry = entry_of(scope)
            entry.sql = request.title
            outcome = await self._counted(database, request, exchange_of(scope))
            entry.outcome, entry.version, entry.rows = outcome.outcome, outcome.version, outcome.rows
        finally:
            await asyncio.shield(asyncio.to_thread(received.path.unlink, missing_ok=True))
        return Answer(_shown(outcome))

    async def _received(
        self, database: Database, scope: Scope, receive: Receive, timeout_s: float, *, wants_digest: bool
    ) -> Received:
        """The body in a file of its own. Raises BodyTooLarge, DiskFull, WriteTimedOut or ClientGone."""
        exchange = exchange_of(scope)
        if exchange is not None:
            exchange.max_body_bytes = self._limits.max_body_bytes
        path = body_path(database.paths)
        try:
            async with asyncio.timeout(timeout_s):
                return await receive_body(
                    scope, receive, path, max_bytes=self._limits.max_body_bytes, wants_digest=wants_digest
                )
        except TimeoutError:
            message = f"The body did not arrive within {timeout_s:g} s."
            raise WriteTimedOut(message, remedy="Send it faster, in pieces, or with a longer timeout_s.") from None

    async def _counted(self, database: Database, request: IngestRequest, exchange: Exchange | None) -> IngestOutcome:
        try:
            outcome = await self._ingests.wait_for(database.ingest(request), exchange)
        except PondkeeperError as error:
            self._context.meters.ingest(error.code)
            raise
        self._context.meters.ingest(outcome.outcome, outcome.rows, outcome.staging_ms / 1000, outcome.hold_ms / 1000)
        return outcome


def _shown(outcome: IngestOutcome) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "outcome": outcome.outcome,
        "version": outcome.version,
        "rows": outcome.rows,
        "rejected": outcome.rejected,
    }
    if outcome.rejects is not None:
        shown["rejects"] = outcome.rejects
    return shown | {"staging_ms": outcome.staging_ms, "hold_ms": outcome.hold_ms}


def make_router(context: Context, handler: IngestHandler) -> APIRouter:
    """The routes of ingests and of rejected rows."""
    router = APIRouter(tags=["ingests"])
    _add_rows(router, handler)
    _add_rejects(router, context)
    return router


def _add_rows(router: APIRouter, handler: IngestHandler) -> None:
    documented: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": {"requestBody": _BODY, "parameters": [KEY_PARAMETER, *_QUERY_PARAMETERS]},
        "responses": gives(IngestAnswer, "The rows are committed and on disk.", example=_ANSWER_EXAMPLE),
    }

    @router.post("/v1/databases/{name}/tables/{table}/rows", summary="Load rows into a table", **documented)
    async def ingest_into_database(name: str, table: str) -> Direct:  # noqa: ARG001  # Why: FastAPI documents them
        return Direct(handler)

    @router.post("/v1/tables/{table}/rows", summary="Load rows into a table of the only database", **documented)
    async def ingest(table: str) -> Direct:  # noqa: ARG001  # Why: as above
        return Direct(handler)


def _add_rejects(router: APIRouter, context: Context) -> None:
    described = {"description": "One JSON object per row: its place, its faults, and the row itself."}
    documented: dict[str, Any] = {
        "response_model": None,
        "responses": {200: described | {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    }

    async def rejects(request: Request, name: str) -> FileResponse:
        database = context.database(request.scope, Action.REJECTS_READ)
        path = database.ingests.rejects.path(name)
        if not REJECTS_NAME.match(name) or not await asyncio.to_thread(path.is_file):
            raise RejectsNotFound
        response = FileResponse(path, media_type="application/x-ndjson")
        response.raw_headers.append(NO_STORE)
        return response

    @router.get(
        "/v1/databases/{name}/rejects",
        summary="Which ingests had rows that were not taken",
        response_model=None,
        responses=gives(RejectsList, "The reject files, the youngest first."),
    )
    async def list_rejects(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        database = context.database(request.scope, Action.REJECTS_READ)
        return Answer({"rejects": await asyncio.to_thread(database.ingests.rejects.list)})

    @router.get("/v1/databases/{name}/rejects/{id}", summary="Rows that an ingest did not take", **documented)
    async def rejects_of_database(request: Request, name: str, id: str) -> FileResponse:  # noqa: A002, ARG001  # Why: the names in the path
        return await rejects(request, id)

    @router.get("/v1/rejects/{id}", summary="Rows that an ingest into the only database did not take", **documented)
    async def rejects_of_only(request: Request, id: str) -> FileResponse:  # noqa: A002  # Why: the name in the path
        return await rejects(request, id)


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _choice(choices: tuple[str, ...], default: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(choices), "default": default}


_BODY: Final = {
    "required": True,
    "description": "The rows, streamed; of any size up to `ingest.max_body_bytes`.",
    "content": {type_: {"schema": {"type": "string", "format": "binary"}} for type_ in CONTENT_TYPES},
}
_QUERY_PARAMETERS: Final = [
    _query(
        "mode",
        "append; upsert: rows whose key is there change it, of equal keys in the body the last; replace: all rows are exchanged.",
        _choice(MODES, "append"),
    ),
    _query("key", "For upsert: columns, with commas between. Without it the primary key.", {"type": "string"}),
    _query("create", "Make the table from the rows, if there is none.", {"type": "boolean", "default": False}),
    _query("evolve", "Add columns that the table has not.", {"type": "boolean", "default": False}),
    _query(
        "on_error",
        "abort: one bad row and nothing is taken; reject: bad rows are put aside and the others are taken.",
        _choice(ON_ERRORS, "abort"),
    ),
    _query("wait", "For what the answer waits.", _choice(WAITS, "commit")),
    _query("priority", "Whose turn it is sooner.", _choice(PRIORITIES, "normal")),
    _query("timeout_s", "From the first byte to the commit; at most `ingest.timeout_s`.", {"type": "number"}),
    _query("format", "Instead of Content-Type: ndjson, json, csv, arrow or parquet.", {"type": "string"}),
    _query("delimiter", "Of CSV: one character, or `tab`.", {"type": "string", "default": ","}),
    _query("header", "Of CSV: whether the first row names the columns.", {"type": "boolean", "default": True}),
]
_ANSWER_EXAMPLE: Final = {
    "outcome": "committed",
    "version": 43,
    "rows": 336776,
    "rejected": 0,
    "staging_ms": 412.7,
    "hold_ms": 198.2,
}

"""Queries: POST …/query, GET /v1/queries, DELETE /v1/queries/{id}."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.types import Receive, Scope, Send

from pondkeeper.access.authorize import Action, authorize, is_allowed
from pondkeeper.access.keys import Key
from pondkeeper.access.limits import Limits as Allowed
from pondkeeper.databases.requests import ReadRequest
from pondkeeper.errors import PondkeeperError, QueryNotFound
from pondkeeper.server.answers import Answer, Direct
from pondkeeper.server.bodies import Decoder, Limits, QueryBody, size_bytes, tightest
from pondkeeper.server.context import Context
from pondkeeper.server.exchange import AnswerCut, ClientGone
from pondkeeper.server.formats import chosen_format
from pondkeeper.server.limiting import check_statement, smallest_int
from pondkeeper.server.openapi import gives, gives_answer, takes
from pondkeeper.server.scopes import PATIENCE, caller_of, client_of, entry_of, exchange_of, header
from pondkeeper.server.shapes import Cancelled, RunningList
from pondkeeper.server.streaming import send_answer

SMALL_BODY_BYTES = 64 * 1024
_decoder = Decoder(QueryBody)
_NO_LIMITS = Limits()


class QueryHandler:
    """POST …/query: the hot path, plain ASGI."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._max_body_bytes = context.settings.server.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one query."""
        outcome = "internal"
        try:
            await self._answer(scope, receive, send)
            outcome = "ok"
        except PondkeeperError as error:
            outcome = error.code
            raise
        except AnswerCut:
            outcome = "cut"
            raise
        except (asyncio.CancelledError, ClientGone):
            outcome = "gone"
            raise
        finally:
            entry_of(scope).outcome = outcome
            self._context.meters.query(outcome)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        format_ = chosen_format(header(scope, b"accept"), scope["query_string"])
        database = self._context.database(scope, Action.QUERY)
        key = caller_of(scope)
        effective = self._context.limits.of(key, database.name)
        if int(header(scope, b"content-length") or 0) > SMALL_BODY_BYTES:
            self._context.throttle.insist_on_room(key, effective)  # Why before: what will be refused need not be received.
        body = await _decoder.read(scope, receive, self._max_body_bytes)
        entry = entry_of(scope)
        entry.sql = body.sql
        check_statement(effective, body.sql, body.parameters)
        request = read_request(body, format_, effective.limits, key, client_of(scope))
        if (exchange := exchange_of(scope)) is not None:
            exchange.cancel_when_gone = True
        scope[PATIENCE] = request.timeout_s
        with self._context.throttle.query(key, effective):
            stream = await database.query(request)
            entry.query_id, entry.version = stream.query_id, stream.version
            try:
                sent_bytes = await send_answer(send, stream, format_, asked_limits(request, effective.limits))
            finally:
                if stream.ending is not None:
                    entry.rows, entry.limit = stream.ending.row_count, stream.ending.limit
        entry.size_bytes = sent_bytes
        self._context.meters.answer(format_, sent_bytes)


def read_request(body: QueryBody, format_: str, allowed: Allowed, key: Key, client: str) -> ReadRequest:
    """What the database is asked: the tightest of the caller's limits and those that hold for its key."""
    limits = body.limits or _NO_LIMITS
    assert allowed.timeout_s is not None  # the server's own, at least
    assert allowed.max_rows is not None
    assert allowed.max_bytes is not None
    return ReadRequest(
        sql=body.sql,
        parameters=body.parameters,
        format=format_,
        timeout_s=tightest(limits.timeout_s, allowed.timeout_s),
        max_rows=int(tightest(limits.max_rows, allowed.max_rows)),
        max_bytes=int(tightest(size_bytes(limits.max_bytes, "max_bytes"), allowed.max_bytes)),
        memory_limit_bytes=smallest_int(size_bytes(limits.memory, "memory"), allowed.memory),
        threads=smallest_int(limits.threads, allowed.threads),
        at_least=body.at_least,
        key_id=key.id,
        client=client,
        grants=key.grants,
    )


def asked_limits(request: ReadRequest, allowed: Allowed) -> frozenset[str]:
    """The limits of an answer's length that the caller has set tighter than they are anyway."""
    names = ("max_rows", "max_bytes")
    return frozenset(name for name in names if getattr(request, name) < getattr(allowed, name))


def make_router(context: Context, handler: QueryHandler) -> APIRouter:
    """The routes of queries."""
    router = APIRouter(tags=["queries"])
    _add_query(router, handler)
    _add_running(router, context)
    return router


def _add_query(router: APIRouter, handler: QueryHandler) -> None:
    documented: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": takes(QueryBody, **_EXAMPLES),
        "responses": gives_answer(_ANSWER_EXAMPLE),
    }

    @router.post("/v1/databases/{name}/query", summary="Query a database", **documented)
    async def query_database(name: str) -> Direct:  # noqa: ARG001  # Why: FastAPI documents the parameter from it
        return Direct(handler)

    @router.post("/v1/query", summary="Query the only database", **documented)
    async def query() -> Direct:
        return Direct(handler)


def _add_running(router: APIRouter, context: Context) -> None:
    @router.get("/v1/queries", summary="What runs now", response_model=None, responses=gives(RunningList, "What runs."))
    async def list_queries(request: Request) -> Answer:
        """Queries and writes that run or wait: one's own, and to an administrator those of others."""
        key = caller_of(request.scope)
        authorize(key, Action.QUERY_SEE_OWN)
        return Answer({"queries": [entry for entry in context.running.list() if _may_see(key, entry)]})

    @router.delete(
        "/v1/queries/{id}", summary="Kill a query", response_model=None, responses=gives(Cancelled, "It was killed.")
    )
    async def cancel_query(request: Request, id: str) -> Answer:  # noqa: A002  # Why: the name in the path
        """Kill a query, or drop a write that has not begun to commit."""
        key = caller_of(request.scope)
        authorize(key, Action.QUERY_CANCEL_OWN)
        entry = context.running.find(id).describe()
        if not _may_cancel(key, entry):
            raise QueryNotFound(f"No query {id!r} is running.")
        entry_of(request.scope).database = entry["database"]
        context.running.cancel(id, by=f"key {key.name!r}")
        return Answer({"id": id, "state": "cancelled"})


def _may_see(key: Key, entry: dict[str, Any]) -> bool:
    is_own = entry["key_id"] == key.id
    return is_allowed(key, Action.QUERY_SEE_OWN if is_own else Action.QUERY_SEE_OTHERS, entry["database"])


def _may_cancel(key: Key, entry: dict[str, Any]) -> bool:
    is_own = entry["key_id"] == key.id
    return is_allowed(key, Action.QUERY_CANCEL_OWN if is_own else Action.QUERY_CANCEL_OTHERS, entry["database"])


_EXAMPLES = {
    "plain": {"sql": "SELECT carrier, count(*) AS flights FROM flights GROUP BY carrier ORDER BY flights DESC"},
    "with parameters": {
        "sql": "SELECT * FROM flights WHERE origin = ? AND month = ? LIMIT 10",
        "parameters": ["JFK", 6],
    },
    "with named parameters": {
        "sql": "SELECT avg(dep_delay) FROM flights WHERE carrier = $carrier",
        "parameters": {"carrier": "UA"},
    },
    "with limits": {
        "sql": "SELECT * FROM flights",
        "limits": {"timeout_s": 5, "max_rows": 1000, "max_bytes": "10MB", "memory": "512MB"},
    },
    "one's own write": {"sql": "SELECT count(*) FROM flights", "at_least": 42},
}
_ANSWER_EXAMPLE = {
    "columns": [{"name": "carrier", "type": "VARCHAR"}, {"name": "flights", "type": "BIGINT"}],
    "rows": [["UA", 58665], ["B6", 54635]],
    "row_count": 2,
    "truncated": False,
    "limit": None,
    "version": 42,
    "elapsed_ms": 3.1,
}

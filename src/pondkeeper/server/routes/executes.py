"""Writes: POST …/execute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.types import Receive, Scope, Send

from pondkeeper.access.authorize import Action
from pondkeeper.databases.requests import WriteOutcome, WriteRequest
from pondkeeper.errors import InvalidRequest, PondkeeperError
from pondkeeper.server.answers import Answer, Direct
from pondkeeper.server.bodies import Decoder, ExecuteBody, WriteLimits, tightest
from pondkeeper.server.context import Context
from pondkeeper.server.finishing import Finishing
from pondkeeper.server.limiting import check_statement, smallest
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.scopes import caller_of, client_of, entry_of, exchange_of, header
from pondkeeper.server.shapes import WriteAnswer

if TYPE_CHECKING:
    from pondkeeper.databases.database import Database
    from pondkeeper.server.exchange import Exchange

MAX_KEY_CHARS = 255
_decoder = Decoder(ExecuteBody)
_NO_LIMITS = WriteLimits()


class ExecuteHandler:
    """POST …/execute: the hot path of writing, plain ASGI."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._limits = context.settings.writer
        self._max_body_bytes = context.settings.server.max_body_bytes
        self._writes = Finishing[WriteOutcome]("write")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out one write."""
        database = self._context.database(scope, Action.EXECUTE)
        body = await _decoder.read(scope, receive, self._max_body_bytes)
        wanted = body.limits or _NO_LIMITS
        entry = entry_of(scope)
        entry.sql = body.sql if body.sql is not None else [statement.sql for statement in body.statements or ()]
        key = caller_of(scope)
        effective = self._context.limits.of(key, database.name)
        statements = body.in_order()
        for sql, parameters in statements:
            check_statement(effective, sql, parameters)
        allowed = self._context.limits.own_timeout_s(key, database.name)
        request = WriteRequest(
            statements=statements,
            timeout_s=smallest(wanted.timeout_s, self._limits.timeout_s, allowed) or self._limits.timeout_s,
            wait_s=tightest(wanted.wait_s, self._limits.wait_s),
            key_id=key.id,
            client=client_of(scope),
            idempotency_key=idempotency_key(scope),
            priority=body.priority,
        )
        outcome = await self._counted(database, request, exchange_of(scope))
        entry.outcome, entry.version, entry.rows = outcome.outcome, outcome.version, sum(outcome.rows_changed)
        rows_changed = outcome.rows_changed if body.statements is not None else outcome.rows_changed[0]
        answer = {"outcome": outcome.outcome, "version": outcome.version, "rows_changed": rows_changed}
        await Answer(answer)(scope, receive, send)

    async def _counted(self, database: Database, request: WriteRequest, exchange: Exchange | None) -> WriteOutcome:
        try:
            outcome = await self._writes.wait_for(database.execute(request), exchange)
        except PondkeeperError as error:
            self._context.meters.write(error.code)
            raise
        self._context.meters.write(outcome.outcome)
        return outcome


def idempotency_key(scope: Scope) -> str | None:
    """The Idempotency-Key of the request. Raises InvalidRequest."""
    value = header(scope, b"idempotency-key")
    if value is None:
        return None
    key = value.decode("latin-1").strip()
    if not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"Idempotency-Key is 1 to {MAX_KEY_CHARS} printable ASCII characters.")
    return key


def make_router(handler: ExecuteHandler) -> APIRouter:
    """The routes of writes."""
    router = APIRouter(tags=["writes"])
    documented: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": takes(ExecuteBody, **_EXAMPLES) | {"parameters": [KEY_PARAMETER]},
        "responses": gives(WriteAnswer, "It is committed and on disk.", example=_ANSWER_EXAMPLE),
    }

    @router.post("/v1/databases/{name}/execute", summary="Write to a database", **documented)
    async def execute_in_database(name: str) -> Direct:  # noqa: ARG001  # Why: FastAPI documents the parameter from it
        return Direct(handler)

    @router.post("/v1/execute", summary="Write to the only database", **documented)
    async def execute() -> Direct:
        return Direct(handler)

    return router


KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name for this write: sent again with the same key and body, it gets the first outcome.",
    "schema": {"type": "string", "maxLength": MAX_KEY_CHARS},
}
_EXAMPLES = {
    "one statement": {"sql": "INSERT INTO notes VALUES (?, ?)", "parameters": [1, "checked"]},
    "an atomic list": {
        "statements": [
            {"sql": "UPDATE accounts SET balance = balance - $x WHERE id = 1", "parameters": {"x": 10}},
            {"sql": "UPDATE accounts SET balance = balance + $x WHERE id = 2", "parameters": {"x": 10}},
        ]
    },
}
_ANSWER_EXAMPLE = {"outcome": "committed", "version": 43, "rows_changed": 1}

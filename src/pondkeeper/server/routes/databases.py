"""Databases: GET /v1/databases, GET /v1/databases/{name}, GET /v1/databases/{name}/queue."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action, authorize, is_allowed
from pondkeeper.access.keys import Key
from pondkeeper.server.answers import Answer
from pondkeeper.server.context import Context
from pondkeeper.server.openapi import gives
from pondkeeper.server.scopes import caller_of
from pondkeeper.server.shapes import DatabaseList, DatabaseState, WaitingLine


def make_router(context: Context) -> APIRouter:
    """The routes of databases."""
    router = APIRouter(tags=["databases"])

    @router.get(
        "/v1/databases", summary="Every database", response_model=None, responses=gives(DatabaseList, "Their states.")
    )
    async def list_databases(request: Request) -> Answer:
        """The state of every database that the key may see."""
        key = caller_of(request.scope)
        authorize(key, Action.DATABASES_LIST)
        seen = [each for each in context.registry.all() if is_allowed(key, Action.DATABASE_STATUS, each.name)]
        return Answer({"databases": [database.status() for database in seen]})

    @router.get(
        "/v1/databases/{name}",
        summary="One database",
        response_model=None,
        responses=gives(DatabaseState, "Its state."),
    )
    async def get_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """Version, age of the snapshot, holder of the lease, queue, sizes. Answers whatever the database is doing."""
        return Answer(context.database(request.scope, Action.DATABASE_STATUS).status())

    @router.get(
        "/v1/databases/{name}/queue",
        summary="Who waits to write",
        response_model=None,
        responses=gives(WaitingLine, "Who has the database, and who waits for it, in order."),
    )
    async def get_queue(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """The holder of the lease, and all that wait in one order; the writes of others without their contents."""
        database = context.database(request.scope, Action.DATABASE_STATUS)
        line = await database.waiting_line()
        key = caller_of(request.scope)
        line["line"] = [_seen_by(key, entry, database.name, _OF_ITS_OWN_IN_LINE) for entry in line["line"]]
        line["writes"] = [_seen_by(key, entry, database.name, _OF_ITS_OWN) for entry in line["writes"]]
        return Answer(line)

    return router


_OF_ITS_OWN = ("sql", "idempotency_key", "key_id", "client")
_OF_ITS_OWN_IN_LINE = ("who", "why", "key_id")


def _seen_by(key: Key, entry: dict[str, Any], database: str, own: tuple[str, ...]) -> dict[str, Any]:
    """The entry without what is only for its own key and for administrators. Programs are seen by everybody."""
    is_program = entry["kind"] == "lease"
    if is_program or entry["key_id"] == key.id or is_allowed(key, Action.QUERY_SEE_OTHERS, database):
        return entry
    return entry | dict.fromkeys(own)

"""Restores in place: POST …/restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action
from pondkeeper.archive.copies import Past
from pondkeeper.archive.place import place_of
from pondkeeper.archive.restoring import Restorations
from pondkeeper.server.answers import Answer
from pondkeeper.server.bodies import Decoder, RestoreBody
from pondkeeper.server.context import Context
from pondkeeper.server.finishing import Finishing
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.scopes import entry_of, exchange_of
from pondkeeper.server.shapes import RestoreAnswer

if TYPE_CHECKING:
    from pondkeeper.databases.database import Database

_decoder = Decoder(RestoreBody)


def make_router(context: Context) -> APIRouter:
    """The routes of restores."""
    router = APIRouter(tags=["archive"])
    restorations = Restorations(context.settings, context.archiver, context.running.events)
    restores = Finishing[dict[str, Any]]("restore")

    async def restore(request: Request) -> Answer:
        database = context.database(request.scope, Action.RESTORE)
        body = await _decoder.read(request.scope, request.receive, context.settings.server.max_body_bytes)
        entry = entry_of(request.scope)
        entry.sql = f"RESTORE {body.describe()}"
        exchange = exchange_of(request.scope)
        answer = await restores.wait_for(_carried_out(context, restorations, database, body), exchange)
        entry.outcome, entry.version = "committed", answer["published"]
        return Answer(answer)

    documented: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": takes(RestoreBody, **_EXAMPLES),
        "responses": gives(RestoreAnswer, "It is restored, on disk, and published.", example=_ANSWER_EXAMPLE),
    }

    @router.post("/v1/databases/{name}/restore", summary="Make a database what it was", **documented)
    async def restore_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """From a snapshot or the archive, in its turn; readers go on with the newest snapshot meanwhile. Can be undone."""
        return await restore(request)

    @router.post("/v1/restore", summary="Make the only database what it was", **documented)
    async def restore_only(request: Request) -> Answer:
        return await restore(request)

    return router


async def _carried_out(
    context: Context, restorations: Restorations, database: Database, body: RestoreBody
) -> dict[str, Any]:
    if body.undo:
        return await restorations.undo(database)
    archiver = context.archiver
    place = archiver.place if archiver is not None else place_of(context.settings.archive, context.registry.home)
    return await restorations.restore(database, Past.at(database.paths, place), body.wanted())


_EXAMPLES = {
    "a point in time": {"at": "2026-11-20T14:03:07Z"},
    "a version": {"version": 42},
    "the last restore taken back": {"undo": True},
}
_ANSWER_EXAMPLE = {
    "published": 57,
    "restored": {
        "version": 42,
        "created_at": "2026-11-20T14:03:06.512Z",
        "source": "archive",
        "size_bytes": 7614464,
        "tables": 4,
    },
}

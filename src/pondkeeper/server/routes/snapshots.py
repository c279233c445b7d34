"""Snapshots: GET and POST …/snapshots."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action
from pondkeeper.server.answers import Answer
from pondkeeper.server.context import Context
from pondkeeper.server.openapi import gives
from pondkeeper.server.scopes import sees_private
from pondkeeper.server.shapes import SnapshotList, SnapshotTaken
from pondkeeper.snapshots.listing import list_snapshots

_PRIVATE = frozenset({"path", "open_by"})


def make_router(context: Context) -> APIRouter:
    """The routes of snapshots."""
    router = APIRouter(tags=["snapshots"])
    listed: dict[str, Any] = {"response_model": None, "responses": gives(SnapshotList, "The newest first.")}
    taken: dict[str, Any] = {"response_model": None, "responses": gives(SnapshotTaken, "It is published.")}

    async def list_them(request: Request) -> Answer:
        database = context.database(request.scope, Action.SNAPSHOT_READ)
        found = await asyncio.to_thread(list_snapshots, database.paths)
        newest_first = sorted(map(asdict, found), key=lambda entry: -entry["version"])
        return Answer({"snapshots": [_shown(request, entry) for entry in newest_first]})

    async def take(request: Request) -> Answer:
        database = context.database(request.scope, Action.SNAPSHOT_TAKE)
        only_changes = request.query_params.get("only_changes", "").lower() in ("true", "1")
        snapshot = await database.take_snapshot(context.settings.writer.timeout_s, only_changes=only_changes)
        return Answer(_shown(request, asdict(snapshot)))

    @router.get("/v1/databases/{name}/snapshots", summary="The snapshots of a database", **listed)
    async def list_of_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        return await list_them(request)

    @router.get("/v1/snapshots", summary="The snapshots of the only database", **listed)
    async def list_of_only(request: Request) -> Answer:
        return await list_them(request)

    @router.post("/v1/databases/{name}/snapshots", summary="Take a snapshot", **taken)
    async def take_of_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        return await take(request)

    @router.post("/v1/snapshots", summary="Take a snapshot of the only database", **taken)
    async def take_of_only(request: Request) -> Answer:
        return await take(request)

    return router


def _shown(request: Request, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry; where it lies and who has it open is for administrators."""
    return entry if sees_private(request.scope) else {name: entry[name] for name in entry if name not in _PRIVATE}

"""Backups: GET and POST …/backups, POST …/backups/verify, POST /v1/backups/prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action, authorize
from pondkeeper.errors import InvalidRequest
from pondkeeper.server.answers import Answer
from pondkeeper.server.bodies import Decoder, PruneBody, VerifyBody
from pondkeeper.server.context import Context
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.scopes import caller_of, entry_of
from pondkeeper.server.shapes import BackupList, BackupsPruned, BackupTaken, BackupVerified

if TYPE_CHECKING:
    from pondkeeper.archive.desk import ArchiverDesk

MAX_BODY_BYTES: Final = 64 * 1024
DEFAULT_LIMIT: Final = 100
MOST_LISTED: Final = 100_000
_verify_decoder = Decoder(VerifyBody)
_prune_decoder = Decoder(PruneBody)


def make_router(context: Context) -> APIRouter:
    """The routes of backups."""
    router = APIRouter(tags=["archive"])
    listed: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": {"parameters": _LIMIT},
        "responses": gives(BackupList, "The newest first."),
    }
    taken: dict[str, Any] = {"response_model": None, "responses": gives(BackupTaken, "It is in the archive.")}
    verified: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": takes(VerifyBody, newest={}, one={"version": 42}),
        "responses": gives(BackupVerified, "It can be restored, and nothing in it is damaged."),
    }

    async def list_them(request: Request) -> Answer:
        database = context.database(request.scope, Action.BACKUP_READ)
        return Answer(await _archiver(context).listed(database.name, _limit(request)))

    async def take(request: Request) -> Answer:
        database = context.database(request.scope, Action.BACKUP_TAKE)
        archiver = _archiver(context)
        snapshot = await database.take_snapshot(context.settings.writer.timeout_s, only_changes=True)
        entry_of(request.scope).version = snapshot.version
        return Answer(await archiver.now(database.name, snapshot.version))

    async def verify(request: Request) -> Answer:
        database = context.database(request.scope, Action.BACKUP_VERIFY)
        body = await _verify_decoder.read(request.scope, request.receive, MAX_BODY_BYTES)
        entry_of(request.scope).target = f"version {body.version or 'newest'}"
        return Answer(await _archiver(context).verify(database.name, body.version))

    @router.get("/v1/databases/{name}/backups", summary="The archived versions of a database", **listed)
    async def list_of_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        return await list_them(request)

    @router.get("/v1/backups", summary="The archived versions of the only database", **listed)
    async def list_of_only(request: Request) -> Answer:
        return await list_them(request)

    @router.post("/v1/databases/{name}/backups", summary="Archive what is committed now", **taken)
    async def take_of_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """Publish it if it is not, and archive it; also where `archive.to` is empty, into the home."""
        return await take(request)

    @router.post("/v1/backups", summary="Archive what is committed in the only database", **taken)
    async def take_of_only(request: Request) -> Answer:
        return await take(request)

    @router.post("/v1/databases/{name}/backups/verify", summary="Restore an archived version and check it", **verified)
    async def verify_of_database(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """Into a file of its own, which is thrown away: every hash, every block, every row of every table."""
        return await verify(request)

    @router.post("/v1/backups/verify", summary="Check an archived version of the only database", **verified)
    async def verify_of_only(request: Request) -> Answer:
        return await verify(request)

    _add_prune(router, context)
    return router


def _add_prune(router: APIRouter, context: Context) -> None:
    @router.post(
        "/v1/backups/prune",
        summary="Remove versions that need not be kept",
        response_model=None,
        openapi_extra=takes(PruneBody, look={"dry_run": True}),
        responses=gives(BackupsPruned, "What went, or would go."),
    )
    async def prune(request: Request) -> Answer:
        """Of every database in the archive, as `archive.keep_…` say; then blocks that no version needs any more."""
        authorize(caller_of(request.scope), Action.BACKUP_PRUNE)
        body = await _prune_decoder.read(request.scope, request.receive, MAX_BODY_BYTES)
        entry_of(request.scope).target = "dry run" if body.dry_run else "prune"
        return Answer(await _archiver(context).prune(dry_run=body.dry_run))


_LIMIT: Final = [
    {
        "name": "limit",
        "in": "query",
        "description": f"At most so many, from 1 to {MOST_LISTED:,}.",
        "schema": {"type": "integer", "default": DEFAULT_LIMIT},
    }
]


def _archiver(context: Context) -> ArchiverDesk:
    assert context.archiver is not None, "a keeper has one"
    return context.archiver


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:10]) <= MOST_LISTED):
        raise InvalidRequest(f"`limit` is a number from 1 to {MOST_LISTED:,}.")
    return int(text)

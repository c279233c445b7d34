"""Replication: what replicas fetch from their primary (GET and POST …/replication…), and POST …/promote."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pondkeeper.access.authorize import Action
from pondkeeper.archive.replica.feed import Asked, Outlet
from pondkeeper.archive.sealing import Sealer
from pondkeeper.errors import DatabaseUnavailable, InvalidRequest, PromotionRefused
from pondkeeper.server.answers import Answer, Direct
from pondkeeper.server.bodies import Decoder
from pondkeeper.server.context import Context
from pondkeeper.server.fetching import BlocksBody, PagesBody
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.problems import JSON, NO_SNIFF, NO_STORE
from pondkeeper.server.scopes import caller_of, entry_of, exchange_of
from pondkeeper.server.shapes import Promoted, ReplicaList

MAX_WAIT_S: Final = 30.0
MAX_NAME: Final = 100
MAX_BODY_BYTES: Final = 64 * 1024
MISSING: Final = b"\xff\xff\xff\xff"
_OCTETS: Final = (b"content-type", b"application/octet-stream")
_sealer = Sealer()
_pages, _blocks = Decoder(PagesBody), Decoder(BlocksBody)


def make_router(context: Context) -> APIRouter:
    """The routes of replication; all of them are for administrators of the database."""
    router = APIRouter(tags=["replication"])
    _add_manifest(router, context)
    _add_objects(router, context)
    _add_replicas(router, context)
    return router


def _outlet(context: Context, scope: Scope) -> Outlet:
    """What is given out of the database that the path names. Raises Forbidden, DatabaseNotFound, DatabaseUnavailable."""
    database = context.database(scope, Action.REPLICATE)
    if context.feed is None:
        raise DatabaseUnavailable("This keeper gives nothing out to replicas.")
    return context.feed.of(database.name)


def _add_manifest(router: APIRouter, context: Context) -> None:
    @router.get(
        "/v1/databases/{name}/replication",
        summary="The newest version, for a replica",
        response_model=None,
        responses={200: {"description": "Its manifest."}, 204: {"description": "There is none newer than `after`."}},
    )
    async def get_manifest(
        request: Request,
        name: str,  # noqa: ARG001  # Why: FastAPI documents it
        replica: Annotated[str, Query(description="The replica's name for itself, the same each time.")] = "",
        after: Annotated[int, Query(ge=0, description="The newest version that it has.")] = 0,
        lineage: Annotated[str, Query(max_length=100, description="Of which lineage that is.")] = "",
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Wait at most so long for a newer one.")] = 0.0,
    ) -> Response:
        """What it is made of: its pages, by whose digests the blocks are found. It is kept for this replica until that asks
        for the next."""
        outlet = _outlet(context, request.scope)
        if not 1 <= len(replica) <= MAX_NAME:  # Why here and not in the signature: who may not ask is told that first.
            raise InvalidRequest(f"`replica` is a name of 1 to {MAX_NAME} characters.")
        entry = entry_of(request.scope)
        if (exchange := exchange_of(request.scope)) is not None:
            exchange.cancel_when_gone = True
        began_at = time.monotonic()
        offer = await outlet.offer(Asked(replica, after, lineage), wait_s, lambda: context.is_stopping)
        waited = (b"pondkeeper-waited-s", b"%.3f" % (time.monotonic() - began_at if offer is None else 0.0))
        if offer is None:
            entry.is_nothing = True
            return _raw(204, [waited], b"")
        entry.version = offer.manifest.version
        name_ = offer.manifest.name.rpartition("/")[2].encode("ascii")
        return _raw(200, [JSON, waited, (b"pondkeeper-manifest", name_)], offer.manifest.encode(_sealer))


def _add_objects(router: APIRouter, context: Context) -> None:
    objects: dict[str, Any] = {
        "response_model": None,
        "responses": {
            200: {
                "description": "Each with four bytes before it: its length (big endian), or 0xFFFFFFFF where it has gone.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    }

    async def send_pages(scope: Scope, receive: Receive, send: Send) -> None:
        outlet = _outlet(context, scope)
        body = await _pages.read(scope, receive, MAX_BODY_BYTES)
        found = b"".join(_framed(page) for page in outlet.pages(body.replica, body.digests))
        entry_of(scope).size_bytes = len(found)
        await _raw(200, [_OCTETS], found)(scope, receive, send)

    async def send_blocks(scope: Scope, receive: Receive, send: Send) -> None:
        outlet = _outlet(context, scope)
        body = await _blocks.read(scope, receive, MAX_BODY_BYTES)
        blocks = [block async for block in outlet.blocks(body.replica, body.digests)]
        if (exchange := exchange_of(scope)) is not None:
            exchange.cancel_when_gone = True
        length = sum(4 + len(block or b"") for block in blocks)
        headers = [_OCTETS, (b"content-length", b"%d" % length), NO_STORE, NO_SNIFF]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for block in blocks:
            await send({"type": "http.response.body", "body": _framed(block), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        entry_of(scope).size_bytes = length

    @router.post("/v1/databases/{name}/replication/pages", summary="Pages, for a replica", openapi_extra=takes(PagesBody), **objects)
    async def get_pages(name: str) -> Direct:  # noqa: ARG001  # Why: FastAPI documents the parameter from it
        """Pages of the versions that are given out now: the digests of 256 blocks each."""
        return Direct(send_pages)

    @router.post("/v1/databases/{name}/replication/blocks", summary="Blocks, for a replica", openapi_extra=takes(BlocksBody), **objects)
    async def get_blocks(name: str) -> Direct:  # noqa: ARG001  # Why: FastAPI documents the parameter from it
        """Blocks of the versions that are given out now, sealed as in an archive: compressed, and proved by their digests."""
        return Direct(send_blocks)


def _add_replicas(router: APIRouter, context: Context) -> None:
    @router.get(
        "/v1/databases/{name}/replicas",
        summary="Who follows a database",
        response_model=None,
        responses=gives(ReplicaList, "Those that asked lately."),
    )
    async def list_replicas(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """The replicas, the version that each has, and what they have cost this keeper."""
        return Answer(_outlet(context, request.scope).describe())

    @router.post(
        "/v1/databases/{name}/promote",
        summary="Make a replica a primary",
        response_model=None,
        responses=gives(Promoted, "It can be written to."),
    )
    async def promote(request: Request, name: str, force: bool = False) -> Answer:
        """Refused while its primary answers, unless `force`: there would be two."""
        context.database(request.scope, Action.PROMOTE)
        if context.replicas is None:
            raise PromotionRefused(f"Database {name!r} is a primary already.", remedy="Write to it.")
        entry = entry_of(request.scope)
        entry.target = f"PROMOTE{' FORCE' if force else ''} by {caller_of(request.scope).id}"
        done = await asyncio.shield(asyncio.ensure_future(context.replicas.promote(context.registry, name, force=force)))
        entry.version = done.version
        return Answer(done)


def _framed(data: bytes | None) -> bytes:
    return MISSING if data is None else struct.pack("!I", len(data)) + data


def _raw(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
    response = Response(body, status_code=status)
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    response.raw_headers = [*headers, *length, NO_STORE, NO_SNIFF]
    return response

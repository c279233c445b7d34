"""Keys: GET and POST /v1/keys, DELETE /v1/keys/{id}. For administrators of the whole keeper."""

from __future__ import annotations

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action, authorize
from pondkeeper.server.answers import Answer
from pondkeeper.server.bodies import Decoder, NewKeyBody
from pondkeeper.server.context import Context
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.scopes import caller_of, entry_of
from pondkeeper.server.shapes import KeyList, KeyMade, KeyRevoked

MAX_BODY_BYTES = 64 * 1024
_decoder = Decoder(NewKeyBody)


def make_router(context: Context) -> APIRouter:
    """The routes of keys."""
    router = APIRouter(tags=["keys"])

    @router.get("/v1/keys", summary="Every key", response_model=None, responses=gives(KeyList, "Without secrets."))
    async def list_keys(request: Request) -> Answer:
        authorize(caller_of(request.scope), Action.KEYS)
        return Answer({"keys": [key.to_wire() for key in await context.keys.all()]})

    @router.post(
        "/v1/keys",
        summary="Make a key",
        status_code=201,
        response_model=None,
        openapi_extra=takes(NewKeyBody, dashboard={"name": "dashboard", "role": "reader", "databases": ["sales"]}),
        responses=gives(KeyMade, "Its token is shown this once.", status=201),
    )
    async def create_key(request: Request) -> Answer:
        authorize(caller_of(request.scope), Action.KEYS)
        body = await _decoder.read(request.scope, request.receive, MAX_BODY_BYTES)
        entry_of(request.scope).target = f"{body.role} {body.name}"
        new = await context.keys.create(
            body.name, body.role, body.databases, body.expires_at, body.tables, body.limits
        )
        return Answer({"key": new.key.to_wire(), "token": new.token}, status=201)

    @router.delete(
        "/v1/keys/{id}",
        summary="Revoke a key",
        response_model=None,
        responses=gives(KeyRevoked, "It opens nothing now."),
    )
    async def revoke_key(request: Request, id: str) -> Answer:  # noqa: A002  # Why: the name in the path
        """End a key by its id or its name, wherever it is in use."""
        authorize(caller_of(request.scope), Action.KEYS)
        return Answer({"key": (await context.keys.revoke(id)).to_wire()})

    return router

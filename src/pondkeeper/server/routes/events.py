"""Events: GET /v1/events, server-sent events of what the key may see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from fastapi import APIRouter
from starlette.types import Receive, Scope, Send

from pondkeeper.access.authorize import Action, authorize, is_allowed
from pondkeeper.databases.events import KINDS, OF_QUERIES, OF_RUNS, Event, Listener
from pondkeeper.errors import InvalidRequest
from pondkeeper.server.answers import Direct
from pondkeeper.server.context import Context
from pondkeeper.server.listeners import is_still_let_in
from pondkeeper.server.problems import NO_SNIFF, NO_STORE
from pondkeeper.server.scopes import caller_of, entry_of, exchange_of, header

if TYPE_CHECKING:
    from pondkeeper.access.keys import Key

HEARTBEAT_S: Final = 15.0
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), NO_STORE, NO_SNIFF, (b"x-accel-buffering", b"no")]
_GAP: Final = b'event: gap\ndata: {"kind":"gap"}\n\n'
_encoder = msgspec.json.Encoder(enc_hook=str)


class EventsHandler:
    """GET /v1/events, plain ASGI. A listener who falls behind gets a gap, and the end: nobody waits for him."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._events = context.running.events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # Why: ASGI passes it
        """Tell what happens until either side has had enough."""
        key = caller_of(scope)
        authorize(key, Action.EVENTS)
        wanted = _Wanted.of(scope, key)
        entry_of(scope).database = wanted.database
        last_id = header(scope, b"last-event-id")
        with self._context.seats.taken_by(key):
            listener = self._events.listen(wanted.takes, last_id.decode("latin-1") if last_id else None)
            try:
                if (exchange := exchange_of(scope)) is not None:
                    exchange.cancel_when_gone = True
                await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
                await self._tell(scope, send, listener)
            finally:
                listener.close()

    async def _tell(self, scope: Scope, send: Send, listener: Listener) -> None:
        await _send(send, b"retry: 1000\n\n")
        while not listener.is_over:
            found = await listener.next(HEARTBEAT_S)
            if listener.has_missed_some:
                await _send(send, _GAP)
                break
            if not await is_still_let_in(self._context, scope):
                break
            await _send(send, b"".join(map(self._wire, found)) or b": heartbeat\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _wire(self, event: Event) -> bytes:
        data = _encoder.encode(event.describe())
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (self._events.id_of(event).encode(), event.kind.encode(), data)


class _Wanted:
    """Which events are for this listener: what he asks for, of what his key may see."""

    def __init__(self, key: Key, database: str | None, kinds: frozenset[str]) -> None:
        self._key = key
        self.database = database
        self._kinds = kinds
        self._may_see: dict[tuple[str, tuple[Action, ...]], bool] = {}

    @staticmethod
    def of(scope: Scope, key: Key) -> _Wanted:
        """Raises InvalidRequest or Forbidden."""
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        kinds = frozenset(kind for words in asked.get("kinds", []) for kind in words.split(",") if kind)
        if unknown := kinds - set(KINDS):
            raise InvalidRequest(f"There are no events of the kind {min(unknown)[:80]!r}; there are {', '.join(KINDS)}.")
        database = asked.get("database", [None])[-1]
        if database is not None:
            authorize(key, Action.DATABASE_STATUS, database)
        return _Wanted(key, database, kinds or frozenset(KINDS))

    def takes(self, event: Event) -> bool:
        """Whether he gets it."""
        if event.kind not in self._kinds or (self.database is not None and event.database != self.database):
            return False
        place = (event.database, _asked_for(event, self._key.id))
        if place not in self._may_see:
            self._may_see[place] = all(is_allowed(self._key, action, event.database or None) for action in place[1])
        return self._may_see[place]


def _asked_for(event: Event, key_id: str) -> tuple[Action, ...]:
    """What a key must be allowed to do to hear of it."""
    if event.kind in OF_RUNS:
        return (Action.JOB_SEE,)
    if event.kind in OF_QUERIES and event.key_id != key_id:
        return (Action.DATABASE_STATUS, Action.QUERY_SEE_OTHERS)
    return (Action.DATABASE_STATUS,)


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def make_router(context: Context) -> APIRouter:
    """The route of events."""
    router = APIRouter(tags=["events"])
    handler = EventsHandler(context)
    documented: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": {"parameters": _PARAMETERS},
        "responses": {
            200: {
                "description": "Server-sent events, until either side ends it; `gap` when some were missed, and then the end.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        },
    }

    @router.get("/v1/events", summary="What happens, as it happens", **documented)
    async def events() -> Direct:
        """Publishes, changes of queue and lease, queries and runs of jobs from their start to their end: what the key may see."""
        return Direct(handler)

    return router


_PARAMETERS: Final = [
    {"name": "database", "in": "query", "schema": {"type": "string"}, "description": "Only those of this database."},
    {
        "name": "kinds",
        "in": "query",
        "schema": {"type": "string"},
        "description": f"Only those of these kinds, with commas between: {', '.join(KINDS)}.",
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "schema": {"type": "string"},
        "description": "The id of the last event that was received, to go on behind it.",
    },
]

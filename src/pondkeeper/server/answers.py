"""Small answers: JSON in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from pondkeeper.server.problems import JSON, NO_SNIFF, NO_STORE, envelope, problem_headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from pondkeeper.errors import PondkeeperError
    from pondkeeper.server.scopes import Headers

_encoder = msgspec.json.Encoder(enc_hook=str)


class Answer(Response):
    """A whole JSON answer. Why not Starlette's own: msgspec encodes, and what is answered is never cached."""

    def __init__(self, content: Any, status: int = 200) -> None:
        self.status_code = status
        self.background = None
        self.body = _encoder.encode(content)
        self.raw_headers = [JSON, (b"content-length", b"%d" % len(self.body)), NO_STORE, NO_SNIFF]


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer with all of the body at once."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_problem(send: Send, error: PondkeeperError, *, with_private: bool = False) -> None:
    """Answer with an error."""
    body = envelope(error, with_private=with_private)
    await send_whole(send, error.http_status, problem_headers(error, body), body)


class Direct(Response):
    """A response that speaks ASGI itself, so that a FastAPI route can lead to a handler of the hot path."""

    def __init__(self, handler: Any) -> None:
        self.background = None
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(scope, receive, send)

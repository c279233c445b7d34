"""CORS: which origins' web pages may ask this keeper. None, unless the settings name them one by one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import SettingInvalid
from pondkeeper.server.answers import send_whole
from pondkeeper.server.scopes import Headers, header

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope, Send

MAX_AGE_S: Final = 600
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?\Z", re.ASCII)
_METHODS: Final = b"GET, POST, PATCH, DELETE"
_REQUEST_HEADERS: Final = b"authorization, content-type, idempotency-key, last-event-id"
_ANSWER_HEADERS: Final = (
    b"pondkeeper-query-id, pondkeeper-version, pondkeeper-row-count, pondkeeper-truncated, pondkeeper-limit, retry-after"
)
_VARY: Final = (b"vary", b"Origin")


class Cors:
    """The origins that are let in. Cookies play no part: a request carries its key in a header, or none."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(map(_checked, origins))

    def origin_of(self, scope: Scope) -> bytes | None:
        """The origin of the page that asks, if it is one of ours."""
        if not self._origins:
            return None
        origin = header(scope, b"origin")
        return origin if origin in self._origins else None

    def is_preflight(self, scope: Scope) -> bool:
        """Whether the browser asks what it may ask."""
        return scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method") is not None

    async def allow(self, send: Send, origin: bytes) -> None:
        """Answer the preflight."""
        headers: Headers = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _REQUEST_HEADERS),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
            _VARY,
        ]
        await send_whole(send, 204, headers, b"")

    def through(self, send: Send, origin: bytes) -> Send:
        """`send`, with what tells the browser that the page may read the answer."""

        async def with_origin(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _ANSWER_HEADERS), _VARY]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        return with_origin


def _checked(origin: str) -> bytes:
    if _ORIGIN.match(origin) is None:
        raise SettingInvalid(
            f"`server.cors_origins`: {origin[:100]!r} is no origin.",
            remedy="Write each as a browser sends it: https://app.example.com, in lower case and without a path.",
        )
    return origin.encode()

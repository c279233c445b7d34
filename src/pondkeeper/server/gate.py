"""The gate: every request passes it. Host, key, the shortcut of the hot path, errors in the envelope, counting.

FastAPI's stack would double the keeper's own cost of a query (65 µs more); so queries and writes go from here to their
handlers, which are the same that FastAPI's routes lead to.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import structlog

from pondkeeper.access.audit import Entry
from pondkeeper.access.authorize import LOCAL_KEY
from pondkeeper.access.tokens import token_in_header
from pondkeeper.errors import PondkeeperError, TooManyFailedLogins, Unauthenticated
from pondkeeper.server.answers import send_problem
from pondkeeper.server.cors import Cors
from pondkeeper.server.hosts import Hosts
from pondkeeper.server.pacing import Pace
from pondkeeper.server.scopes import CALLER, ENTRY, entry_of, exchange_of, header, sees_private

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from pondkeeper.access.audit import Audit
    from pondkeeper.access.keys import Key
    from pondkeeper.server.context import Context

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready"})
UNRECORDED_PATHS: Final = OPEN_PATHS | {"/metrics", "/openapi.json"}
MAX_RECORDED_PATH: Final = 300
_log = structlog.get_logger(__name__)


class Gate:
    """The outermost part of the app. `shortcuts`: the last word of a POST's path to its handler."""

    def __init__(self, app: ASGIApp, context: Context, shortcuts: dict[str, ASGIApp]) -> None:
        self._app = app
        self._keys = context.keys
        self._meters = context.meters
        self._audit = context.audit
        self._cors = Cors(context.settings.server.cors_origins)
        self._limits, self._throttle = context.limits, context.throttle
        self._hosts = Hosts(context.settings.server.host, context.settings.server.allowed_hosts)
        self._pace = Pace()
        self._shortcuts = shortcuts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (origin := self._cors.origin_of(scope)) is not None:
            if self._cors.is_preflight(scope):
                await self._cors.allow(send, origin)
                return
            send = self._cors.through(send, origin)
        began = time.perf_counter()
        exchange = exchange_of(scope)
        entry = scope[ENTRY] = Entry(began_at=time.time())
        try:
            await self._let_in(scope)
            await (self._shortcut(scope) or self._app)(scope, receive, send)
        except PondkeeperError as error:
            note_refusal(error, scope)
            await self._pace.hold(error, scope)
            await send_problem(send, error, with_private=sees_private(scope))
        finally:
            status = exchange.status if exchange is not None else 0
            elapsed_s = time.perf_counter() - began
            self._meters.request(_route_of(scope), scope["method"], status, elapsed_s)
            if self._audit is not None and scope["path"] not in UNRECORDED_PATHS and not entry.is_nothing:
                self._record(self._audit, scope, entry, status, elapsed_s)

    def _record(self, audit: Audit, scope: Scope, entry: Entry, status: int, elapsed_s: float) -> None:
        """Let the audit tell of a request that has ended."""
        if entry.outcome == TooManyFailedLogins.code:
            audit.note_refused_login()
            return
        entry.key = scope.get(CALLER)
        exchange = exchange_of(scope)
        if exchange is not None and exchange.peer is not None:
            entry.client, entry.door = f"pid {exchange.peer.pid}", "socket"
        else:
            entry.client = scope.get("client")
        entry.request = f"{scope['method']} {scope['path'][:MAX_RECORDED_PATH]}"
        entry.status, entry.elapsed_s = status, elapsed_s
        if entry.outcome is None:
            entry.outcome = "ok" if 200 <= status < 400 else "gone"
        audit.note(entry)

    async def _let_in(self, scope: Scope) -> None:
        """Put the caller into the scope. Raises Unauthenticated, HostNotAllowed, HttpInvalid, RateLimited or AuditUnavailable."""
        if self._audit is not None and scope["path"] not in UNRECORDED_PATHS:
            self._audit.check()
        exchange = exchange_of(scope)
        if exchange is not None and exchange.peer is not None:
            scope[CALLER] = LOCAL_KEY
            return
        self._hosts.check(header(scope, b"host"))
        if scope["path"] not in OPEN_PATHS:
            key = scope[CALLER] = await self._authenticated(scope)
            self._throttle.request(key, self._limits.of(key))

    async def _authenticated(self, scope: Scope) -> Key:
        try:
            return await self._keys.authenticate(token_in_header(header(scope, b"authorization")))
        except Unauthenticated:
            client = scope.get("client")
            self._throttle.failed_login(client[0] if client else None)
            raise

    def _shortcut(self, scope: Scope) -> ASGIApp | None:
        """The handler of /v1/<word> and /v1/databases/<name>/<word>, when it is on the hot path; for rows that of a table."""
        if scope["method"] != "POST":
            return None
        # Why raw: the name of a table may hold a slash, as %2F.
        raw: bytes = scope["raw_path"]
        _, version, *parts = raw.decode("latin-1").split("/") if raw.startswith(b"/") else ("", "")
        handler = self._shortcuts.get(parts[-1]) if version == "v1" and parts else None
        if handler is None:
            return None
        word, noun = parts.pop(), ""
        if word == "rows":
            if len(parts) < 2 or parts[-2] != "tables":
                return None
            noun, parts = "tables/{table}/", parts[:-2]
        if parts and (len(parts) != 2 or parts[0] != "databases"):
            return None
        scope["path_params"] = {"name": unquote(parts[1])} if parts else {}
        scope["pondkeeper.route"] = f"/v1/{noun}{word}"
        return handler


def _route_of(scope: Scope) -> str:
    """The template of the path: never the path itself, of which there are as many as anybody likes."""
    if shortcut := scope.get("pondkeeper.route"):
        return str(shortcut)
    return str(getattr(scope.get("route"), "path", "other"))


def note_refusal(error: PondkeeperError, scope: Scope) -> None:
    """Log it: what is the keeper's doing as a warning, what is the caller's for whoever looks closely."""
    entry_of(scope).outcome = error.code
    details = {"code": error.code, "path": scope["path"], "message": error.message, "private": error.private}
    if error.http_status >= 500:
        _log.warning("a request failed", **details)
    else:
        _log.debug("a request was refused", **details)

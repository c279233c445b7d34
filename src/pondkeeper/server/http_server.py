"""The HTTP server: accepts connections on every socket, keeps their deadlines, and drains when it is to stop."""

from __future__ import annotations

import asyncio
import resource
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from pondkeeper.server.bounds import Bounds
from pondkeeper.server.listening import BACKLOG
from pondkeeper.server.protocol import KeeperProtocol

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable

    from pondkeeper.server.app import KeeperApp

# Why: an answer is data. A browser is to draw, frame, run or guess nothing of it, and to tell nobody where it came from.
SAFE_HEADERS: Final = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")
END_TIMEOUT_S: Final = 2.0
_log = structlog.get_logger(__name__)


class HttpServer:
    """Serves an app on sockets that listen already."""

    def __init__(self, app: KeeperApp, bounds: Bounds | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._app = app
        self._bounds = bounds or Bounds.of(app.context.settings.server, max_connections())
        # Why no proxy_headers: uvicorn would believe anybody on this machine who their request comes from.
        self._config = Config(
            app,
            lifespan="off",
            ws="none",
            http=KeeperProtocol,
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()
        self._tls = tls
        self._state = ServerState()
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._give_up_at = 0.0

    async def start(self, tcp: Iterable[socket.socket], control: socket.socket | None = None) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        self._app.context.meters.connections.set_function(lambda: len(self._state.connections))
        self._refresh_date()
        self._sweeper = loop.create_task(self._sweep(), name="connection-sweep")
        for opened in tcp:
            self._listeners.append(await self._listen(opened))
        if control is not None:
            self._listeners.append(await loop.create_unix_server(self._control_connection, sock=control, backlog=BACKLOG))

    async def _listen(self, opened: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if self._tls is None:
            # Trap: without a backlog here the loop listens once more, with one of 100.
            return await loop.create_server(self._connection, sock=opened, backlog=BACKLOG)
        return await loop.create_server(
            self._connection,
            sock=opened,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=self._bounds.header_timeout_s,
            ssl_shutdown_timeout=self._bounds.linger_s,
        )

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let running requests finish within the grace, then cancel them."""
        self._app.context.is_stopping = True
        self._app.context.running.events.close()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if not await self._emptied(grace_s):
            _log.warning("requests are cancelled: the grace period is over", count=len(self._state.tasks))
            for task in list(self._state.tasks):
                task.cancel()
            await self._emptied(END_TIMEOUT_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def hurry(self) -> None:
        """End a `stop` that waits for requests: they are cancelled now."""
        self._give_up_at = 0.0

    def _connection(self) -> KeeperProtocol:
        return KeeperProtocol(self._config, self._state, self._bounds, is_control=False)

    def _control_connection(self) -> KeeperProtocol:
        return KeeperProtocol(self._config, self._state, self._bounds, is_control=True)

    async def _emptied(self, timeout_s: float) -> bool:
        """Whether every request was answered, and every answer sent, within the time; `hurry` cuts it short."""
        self._give_up_at = time.monotonic() + timeout_s
        while self._state.connections or self._state.tasks:
            if time.monotonic() >= self._give_up_at:
                return False
            await asyncio.sleep(0.02)
        return True

    async def _sweep(self) -> None:
        """Keep the deadlines of all connections. Why one sweep: a timer per request would cost each of them."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._bounds.sweep_interval_s)
            self._refresh_date()
            now = loop.time()
            for connection in list(self._state.connections):
                assert isinstance(connection, KeeperProtocol)
                connection.sweep(now)

    def _refresh_date(self) -> None:
        always = SAFE_HEADERS if self._tls is None else [*SAFE_HEADERS, STRICT_TRANSPORT]
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode()), *always]


def max_connections() -> int:
    """Half of the file descriptors that this process may have; the rest is for the children and files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 2))

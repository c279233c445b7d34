"""A server on real sockets, in a thread of its own with the event loop of the real keeper."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from pondkeeper.access.audit import Audit
from pondkeeper.access.keyring import Keyring
from pondkeeper.server.app import KeeperApp, create_app
from pondkeeper.server.bounds import Bounds
from pondkeeper.server.http_server import HttpServer
from pondkeeper.server.listening import listen_control, listen_tcp
from pondkeeper.server.tls import tls_context
from pondkeeper.settings import ReaderSettings, ServerSettings, Settings
from tests.server.standin import Database, Registry


class Served:
    """The app on TCP and on a control socket. `database` is the one that `/v1/query` means."""

    def __init__(self, folder: Path, *names: str, bounds: Bounds | None = None, **settings: Any) -> None:
        self.folder = folder
        self.registry = Registry(folder, *names)
        self.settings = replace(Settings(readers=ReaderSettings(max_rows=1000, timeout_s=20.0)), **settings)
        self._bounds = bounds
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> Served:
        self._thread.start()
        self.call(self._start())
        return self

    def call(self, coroutine: Any, timeout_s: float = 20.0) -> Any:
        """Run something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    async def _start(self) -> None:
        self.keys = await Keyring.open(self.folder / "control.db")
        self.token = await self.keys.ensure_admin_key()
        self.audit = Audit.open(self.folder / "audit", self.settings.audit)
        self.app: KeeperApp = create_app(self.registry, self.registry.running, self.keys, self.settings, self.audit)  # type: ignore[arg-type]
        self.server = HttpServer(self.app, self._bounds, tls_context(self.settings.server))
        listening = listen_tcp("127.0.0.1", 0)
        self.port = listening[0].getsockname()[1]
        self.socket_path = self.folder / "keeper.sock"
        await self.server.start(listening, listen_control(self.socket_path))

    def stop(self) -> None:
        self.call(self.server.stop(0.5))
        self.call(self.keys.close())
        self.audit.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def database(self) -> Database:
        return self.registry.get(None)

    @property
    def url(self) -> str:
        return f"http{'s' if self.settings.server.tls_cert else ''}://127.0.0.1:{self.port}"

    def key(self, role: str, *databases: str) -> str:
        """The token of a new key."""
        name = f"{role} {'-'.join(databases)} {len(self.call(self.keys.all()))}"
        return str(self.call(self.keys.create(name, role, databases or ("*",))).token)

    def client(self, token: str | None = "", **options: Any) -> httpx.Client:
        """A client with the admin key, another one, or (None) without any."""
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        # Why no `verify` where nothing is verified: it reads all certificates for each client, which takes longer than most tests.
        options = {"verify": bool(self.settings.server.tls_cert)} | options
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=15, **options)

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def request(self, body: bytes, path: str = "/v1/query", *headers: str, method: str = "POST") -> bytes:
        """A request as bytes, with the admin key."""
        head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}", *headers]
        if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "", ""]).encode() + body


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset ends it too."""
    parts = []
    try:
        while part := connection.recv(1 << 20):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


MakeServed = Callable[..., Served]


@pytest.fixture
def make_served(tmp_path: Path) -> Iterator[MakeServed]:
    """Starts servers: `make_served("a", "b", bounds=…)` with two databases."""
    made: list[Served] = []

    def make(*names: str, **options: Any) -> Served:
        folder = tmp_path / f"home{len(made)}"
        folder.mkdir()
        made.append(Served(folder, *(names or ("pond",)), **options))
        return made[-1].start()

    yield make
    for served in made:
        served.stop()


@pytest.fixture
def served(make_served: MakeServed) -> Served:
    """A server with one database."""
    return make_served()


@pytest.fixture
def hasty(make_served: MakeServed) -> Served:
    """A server that has little patience."""
    bounds = Bounds(header_timeout_s=0.5, body_timeout_s=0.7, keep_alive_s=1.0, linger_s=0.3, max_head_bytes=4096,
                    max_body_bytes=10_000, max_pipelined=4, unsent_bytes=64 * 1024)  # fmt: skip
    return make_served(bounds=bounds, server=ServerSettings(max_body_bytes=10_000))

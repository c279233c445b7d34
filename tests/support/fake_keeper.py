"""A server that answers as it is told: for what a healthy keeper never does."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


@dataclass
class Reply:
    """One answer. `stop_after` cuts the connection after so many bytes of the body; `delay_s` comes before the head."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    stop_after: int | None = None
    delay_s: float = 0.0


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answerer = Callable[[Request], Reply]


def answer(value: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON reply."""
    return Reply(status, json.dumps(value).encode(), {name.replace("_", "-"): text for name, text in headers.items()})


def problem(
    code: str, status: int, message: str = "It went wrong.", *, retry_after: str | None = None, **details: Any
) -> Reply:
    """An error reply in the keeper's envelope."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    return answer({"error": {"code": code, "message": message, "remedy": "Mend it.", **details}}, status, **headers)


def rows(columns: dict[str, str], *found: list[Any], version: int = 7) -> Reply:
    """A whole answer of a query as JSON."""
    listed = [{"name": name, "type": kind} for name, kind in columns.items()]
    wire = {"columns": listed, "rows": list(found), "row_count": len(found), "truncated": False, "limit": None}
    return answer({**wire, "version": version, "elapsed_ms": 1.5})


class FakeKeeper:
    """Serves on a TCP port, or on a Unix socket; remembers every request."""

    def __init__(self, respond: Answerer, socket_path: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()
        handler = self._handler(respond)
        self._server: socketserver.BaseServer
        if socket_path is None:
            server = _TcpServer(("127.0.0.1", 0), handler)
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            self._server = server
        else:
            self.url = ""
            self._server = _UnixServer(str(socket_path), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def _handler(keeper, respond: Answerer) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                body = json.loads(content) if content else None
                request = Request(self.command, self.path, dict(self.headers.items()), body)
                keeper.requests.append(request)
                reply = respond(request)
                if reply.delay_s:
                    keeper.released.wait(reply.delay_s)
                with contextlib.suppress(ConnectionError):  # a client that has gone
                    self.reply(reply)

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815  the names that http.server calls

            def reply(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                if reply.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                else:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                body = reply.body[: reply.stop_after]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if reply.chunked else body)
                if reply.stop_after is not None:
                    self.close_connection = True
                elif reply.chunked:
                    self.wfile.write(b"0\r\n\r\n")

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: Any) -> None:
                """Tests are quiet."""

        return Handler

    def start(self) -> FakeKeeper:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def fake_keeper(respond: Answerer, socket_path: Path | None = None) -> Iterator[FakeKeeper]:
    """A running fake keeper."""
    keeper = FakeKeeper(respond, socket_path).start()
    try:
        yield keeper
    finally:
        keeper.stop()

"""A web server of a test's own: what it answers is written by the test, and what it was asked for can be read."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAST_MODIFIED = "Sat, 21 Nov 2026 03:00:00 GMT"
_RANGE = re.compile(r"bytes=(\d+)-\Z")


@dataclass
class Asked:
    """One request, and what it was answered with."""

    path: str
    headers: dict[str, str]
    status: int = 0


@dataclass
class Answer:
    """An answer. `cut`: the connection is closed after so many bytes of the body, whatever was promised."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Page = Callable[[Asked], Answer]


class Site:
    """Pages by their path."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
                answer = site.pages.get(self.path, lambda asked: Answer(b"nothing here", 404))(asked)
                asked.status = answer.status
                with site._lock:
                    site.asked.append(asked)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 304:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: answer.cut])
                self.close_connection = answer.cut is not None

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """Who hangs up in the midst of an answer is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def file(self, path: str, body: bytes, **headers: str) -> None:
        """A file as a good server has it: with validators, conditional requests and ranges."""
        etag = headers.setdefault("ETag", f'"{hashlib.sha256(body).hexdigest()[:12]}"')
        headers.setdefault("Last-Modified", LAST_MODIFIED)

        def page(asked: Asked) -> Answer:
            if asked.headers.get("if-none-match") == etag:
                return Answer(status=304, headers=headers)
            found = _RANGE.match(asked.headers.get("range", ""))
            if found and asked.headers.get("if-range", etag) == etag:
                begin = int(found[1])
                if begin >= len(body):
                    return Answer(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
                ranged = {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}
                return Answer(body[begin:], 206, headers | ranged)
            return Answer(body, 200, headers)

        self.pages[path] = page

    def statuses(self, path: str) -> list[int]:
        """What a page was answered with, each time."""
        return [asked.status for asked in self.asked if asked.path == path]

    @contextmanager
    def running(self) -> Iterator[Site]:
        """Serve within the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

"""One request and its response on a connection: uvicorn's cycle, with its own way of writing.

A small answer is one write; a piece of a stream goes to the kernel without being copied again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from pondkeeper.errors import KeeperStopping, PondkeeperError
from pondkeeper.server.problems import raw_problem
from pondkeeper.server.scopes import EXCHANGE

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGISendEvent

    from pondkeeper.server.bounds import Peer
    from pondkeeper.server.scopes import Headers

JOIN_BELOW_BYTES: Final = 64 * 1024
LAST_CHUNK: Final = b"0\r\n\r\n"
BODYLESS: Final = frozenset({204, 304})

_log = structlog.get_logger(__name__)


class AnswerCut(Exception):
    """The answer cannot end as its head promised: the connection is aborted, so that nobody takes it for whole."""


class ClientGone(Exception):
    """The client closed its connection before its request had arrived."""


class Exchange(RequestResponseCycle):
    """A request and its response. The app sets `cancel_when_gone` while its work is for this client alone.

    `max_body_bytes`, when the app sets it, replaces the server's bound: such a body may take as long as it comes at all.
    """

    peer: Peer | None = None
    is_head = False
    status = 0
    cancel_when_gone = False
    max_body_bytes: int | None = None
    task: asyncio.Task[None] | None = None
    _head = b""

    def gone(self) -> None:
        """The connection is lost: tell the app, and end the work that nobody waits for any more."""
        if self.response_complete:
            return
        self.disconnected = True
        self.message_event.set()
        if self.cancel_when_gone and self.task is not None:
            self.task.cancel()

    def say(self, error: PondkeeperError) -> bool:
        """Answer with the error now, and tell the app: gone. False when it was too late for an answer: aborted."""
        if self.response_complete or self.disconnected:
            return False
        if self.response_started:
            self.transport.abort()
            return False
        self.response_started = self.response_complete = self.disconnected = True
        self.status = error.http_status
        self.transport.write(raw_problem(error))
        self.message_event.set()
        return True

    def _say_and_close(self, error: PondkeeperError) -> None:
        if self.say(error):
            self.transport.close()

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Run the app; whatever comes of it, the connection is left answered, closed or aborted."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete:
                self._say_and_close(PondkeeperError())
        except ClientGone:
            return
        except AnswerCut:
            self.transport.abort()
        except asyncio.CancelledError:
            self._say_and_close(KeeperStopping())
        except Exception:  # noqa: BLE001  # Why broad: whatever an app raises must not leave a client waiting, nor end the server
            _log.exception("a request failed")
            self._say_and_close(PondkeeperError())
        finally:
            self.on_response = _nothing
            self.scope.pop(EXCHANGE, None)  # type: ignore[typeddict-item]  # Why: it would be a reference cycle
            self.task = None

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the response; waits while the client does not read."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")

    def _begin(self, status: int, headers: Headers) -> None:
        if self.response_started:
            raise RuntimeError("the response has begun already")
        self.response_started = True
        self.status = status
        self.waiting_for_100_continue = False
        self._choose_framing(status, headers)
        parts = [STATUS_LINE[status]]
        for name, value in self.default_headers + headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)
        if self._head.count(b"\n") != len(self.default_headers) + len(headers) + 2:
            raise RuntimeError("a response header holds a line break")
        if self.chunked_encoding:
            self._write(b"")

    def _choose_framing(self, status: int, headers: Headers) -> None:
        """Content-Length as given, else chunks. The head of a stream is sent at once, others with their body."""
        self.chunked_encoding = False
        has_length = False
        for name, value in headers:
            if name == b"content-length":
                has_length = True
                self.expected_content_length = int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
        if not has_length and status not in BODYLESS:
            self.chunked_encoding = True
            headers.append((b"transfer-encoding", b"chunked"))
        # Why also while the body comes: we shall not read the rest of it, and the client must not use the connection again.
        if not self.keep_alive or self.more_body:
            headers.append((b"connection", b"close"))

    def _go_on(self, body: Any, *, more: bool) -> None:
        if not self.response_started or self.response_complete:
            raise RuntimeError("a body outside of a response")
        if self.is_head:
            self._write(b"")
        elif self.chunked_encoding:
            self._write_chunk(body, more=more)
        else:
            self._write_counted(body, more=more)
        if not more:
            self._complete()

    def _write_chunk(self, body: Any, *, more: bool) -> None:
        last = b"" if more else LAST_CHUNK
        if body:
            self._write(b"%x\r\n" % len(body), body, b"\r\n" + last)
        else:
            self._write(last)

    def _write_counted(self, body: Any, *, more: bool) -> None:
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length and not more):
            raise RuntimeError("the body is not as long as its Content-Length")
        self._write(body)

    def _write(self, *parts: Any) -> None:
        if self._head:
            parts = (self._head, *parts)
            self._head = b""
        if sum(map(len, parts)) <= JOIN_BELOW_BYTES:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _nothing() -> None:
    """What a finished exchange does on a response."""

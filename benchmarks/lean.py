"""A client as lean as Python allows: one kept-alive socket, and bodies received where they are to stay.

The benchmarks use it beside `pondkeeper.client` so that a figure shows the keeper and not an HTTP library. An Arrow answer
is read message by message while it arrives: `recvmsg_into` puts the bytes into buffers of pyarrow's own pool, and the few
bytes of each chunk's frame beside them; nothing is copied again.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import pyarrow as pa

HEAD_LIMIT_BYTES = 64 * 1024
FRAME_BYTES = 16
BLOCK_BYTES = 1024 * 1024
ARROW = "application/vnd.apache.arrow.stream"


class LeanError(Exception):
    """The server answered with an error; `code` is Pondkeeper's."""

    def __init__(self, status: int, body: bytes) -> None:
        try:
            error = json.loads(body)["error"]
            self.code: str = error["code"]
            message = f"{status} {error['code']}: {error['message']}"
        except (ValueError, KeyError, TypeError):
            self.code = ""
            message = f"{status}: {body[:300]!r}"
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Response:
    """A response with its whole body."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Body:
    """The body of a response as it arrives, in chunks or counted."""

    def __init__(self, connection: socket.socket, headers: dict[bytes, bytes], begun: bytes) -> None:
        self._connection = connection
        self._at_hand = bytearray(begun)
        self._scratch = bytearray(FRAME_BYTES)
        self._is_chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        self._left = 0 if self._is_chunked else int(headers.get(b"content-length", b"0"))
        self._ended = False
        self._follows_chunk = False
        self.closed = False

    def readinto(self, target: memoryview) -> int:
        """Fill the target; less than all of it is the end of the body."""
        filled = 0
        while filled < len(target) and self._has_more():
            wanted = min(self._left, len(target) - filled)
            got = self._take(target[filled : filled + wanted])
            self._left -= got
            filled += got
        return filled

    def read(self, size: int = -1) -> Any:
        """What pyarrow asks a file for: a buffer of its pool. Without a size the whole rest, as bytes."""
        if size < 0:
            return self.rest()
        from pyarrow import allocate_buffer

        buffer = allocate_buffer(size)
        got = self.readinto(memoryview(buffer).cast("B"))
        return buffer if got == size else buffer.slice(0, got)

    def rest(self) -> bytes:
        """All that is left."""
        blocks: list[bytes] = []
        block = bytearray(min(max(self._left, FRAME_BYTES), BLOCK_BYTES))
        while got := self.readinto(memoryview(block)):
            blocks.append(bytes(memoryview(block)[:got]))
            block = block if len(block) == BLOCK_BYTES else bytearray(BLOCK_BYTES)
        return b"".join(blocks)

    def _has_more(self) -> bool:
        """Whether bytes of the body are left; goes on to the next chunk."""
        if self._left or self._ended or not self._is_chunked:
            return self._left > 0
        line = self._line() if not self._follows_chunk else self._line() or self._line()
        self._follows_chunk = True
        self._left = int(line.split(b";", 1)[0], 16)
        if not self._left:
            self._ended = True
            self._line()
        return self._left > 0

    def _take(self, target: memoryview) -> int:
        """Some bytes of the current chunk; a receive also asks for the frame behind it."""
        if self._at_hand:
            got = min(len(target), len(self._at_hand))
            target[:got] = self._at_hand[:got]
            del self._at_hand[:got]
            return got
        ask_for_frame = self._is_chunked and len(target) == self._left
        got = _some(self._connection.recvmsg_into([target, self._scratch] if ask_for_frame else [target])[0])
        self._at_hand += self._scratch[: max(0, got - len(target))]
        return min(got, len(target))

    def _line(self) -> bytes:
        while (end := self._at_hand.find(b"\r\n")) < 0:
            data = self._connection.recv(FRAME_BYTES)
            _some(len(data))
            self._at_hand += data
        line = bytes(self._at_hand[:end])
        del self._at_hand[: end + 2]
        return line


class LeanClient:
    """One connection; not for use by several threads."""

    def __init__(self, url: str, key: str, database: str | None = None, timeout_s: float = 120.0) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._scratch = bytearray(HEAD_LIMIT_BYTES)
        self._common = f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n".encode()
        self._base = f"/v1/databases/{database}" if database else "/v1"

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def query(self, sql: str, **fields: Any) -> dict[str, Any]:
        """The JSON answer of a query."""
        return self._json("POST", self._base + "/query", {"sql": sql, **fields})

    def execute(self, sql: str, **fields: Any) -> dict[str, Any]:
        return self._json("POST", self._base + "/execute", {"sql": sql, **fields})

    def get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path, None)

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        return self._json("POST", path, fields or None)

    def arrow(self, sql: str, **fields: Any) -> pa.Table:
        """The answer of a query as an Arrow table."""
        from pyarrow import ipc

        body = json.dumps({"sql": sql, **fields}).encode()
        status, headers, stream = self._begin("POST", self._base + "/query", body, ARROW)
        try:
            if status >= 400:
                raise LeanError(status, stream.rest())
            with ipc.open_stream(stream) as reader:
                table = reader.read_all()
            stream.rest()
        except BaseException:  # Why: whatever ended it, the rest of the answer is still on this connection.
            self.close()
            raise
        self._end(headers)
        return table

    def _json(self, method: str, path: str, fields: dict[str, Any] | None) -> dict[str, Any]:
        body = json.dumps(fields).encode() if fields is not None else None
        response = self._checked(self.request(method, path, body, accept="application/json"))
        answer: dict[str, Any] = json.loads(response.body)
        return answer

    @staticmethod
    def _checked(response: Response) -> Response:
        if response.status >= 400:
            raise LeanError(response.status, response.body)
        return response

    def request(self, method: str, path: str, body: bytes | None, accept: str = "*/*") -> Response:
        """Send one request and receive the whole response."""
        try:
            status, headers, stream = self._begin(method, path, body, accept)
            response = Response(status, headers, stream.rest())
        except BaseException:  # Why: whatever ended it, the rest of the answer is still on this connection.
            self.close()
            raise
        self._end(headers)
        return response

    def _begin(self, method: str, path: str, body: bytes | None, accept: str) -> tuple[int, dict[bytes, bytes], Body]:
        """Send a request and receive the head of its response."""
        head = f"{method} {path} HTTP/1.1\r\nAccept: {accept}\r\n".encode() + self._common
        if body is not None:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(head + b"\r\n" + (body or b""))
        status, headers, rest = self._receive_head(self._socket)
        return status, headers, Body(self._socket, headers, rest)

    def _end(self, headers: dict[bytes, bytes]) -> None:
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()

    def _receive_head(self, connection: socket.socket) -> tuple[int, dict[bytes, bytes], bytes]:
        filled, end = 0, -1
        while end < 0:
            got = connection.recv_into(memoryview(self._scratch)[filled:])
            if not got:
                raise ConnectionError("the server closed the connection before its answer")
            filled += got
            end = self._scratch.find(b"\r\n\r\n", 0, filled)
        lines = bytes(self._scratch[:end]).split(b"\r\n")
        pairs = (line.split(b":", 1) for line in lines[1:])
        headers = {name.lower(): value.strip() for name, value in pairs}
        return int(lines[0][9:12]), headers, bytes(self._scratch[end + 4 : filled])


def _some(got: int) -> int:
    if not got:
        raise ConnectionError("the server ended its answer before the end: the query failed, or was stopped")
    return got

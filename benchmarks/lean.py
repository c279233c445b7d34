"""A client as lean as Python allows: one kept-alive socket, bodies received in place, Arrow read without a copy.

The benchmarks use it beside `pondkeeper.client` so that a figure shows the keeper and not an HTTP library. A large body
goes by `recvmsg_into` straight to its final place in one lazily filled anonymous mapping, with the few bytes of each
chunk's frame into a scratch buffer; pyarrow then reads the stream from the mapping.
"""

from __future__ import annotations

import json
import mmap
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

RESERVED_BYTES = 1 << 36
HEAD_LIMIT_BYTES = 64 * 1024
FRAME_BYTES = 16
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
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
    status: int
    headers: dict[bytes, bytes]
    body: memoryview


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

    def arrow_bytes(self, sql: str, **fields: Any) -> memoryview:
        """The Arrow IPC stream of a query's answer, in one buffer."""
        body = json.dumps({"sql": sql, **fields}).encode()
        response = self.request("POST", self._base + "/query", body, accept=ARROW)
        return self._checked(response).body

    def _json(self, method: str, path: str, fields: dict[str, Any] | None) -> dict[str, Any]:
        body = json.dumps(fields).encode() if fields is not None else None
        response = self._checked(self.request(method, path, body, accept="application/json"))
        answer: dict[str, Any] = json.loads(bytes(response.body))
        return answer

    @staticmethod
    def _checked(response: Response) -> Response:
        if response.status >= 400:
            raise LeanError(response.status, bytes(response.body))
        return response

    def request(self, method: str, path: str, body: bytes | None, accept: str = "*/*") -> Response:
        """Send one request and receive the whole response; a connection that was dropped while idle is replaced."""
        head = f"{method} {path} HTTP/1.1\r\nAccept: {accept}\r\n".encode() + self._common
        if body is not None:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        try:
            return self._exchange(head + b"\r\n" + (body or b""))
        except BaseException:
            self.close()
            raise

    def _exchange(self, message: bytes) -> Response:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(message)
        status, headers, rest = self._receive_head(self._socket)
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            body = _receive_chunked(self._socket, rest)
        else:
            body = _receive_exactly(self._socket, rest, int(headers.get(b"content-length", b"0")))
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return Response(status, headers, body)

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


def _receive_exactly(connection: socket.socket, begun: bytes, length: int) -> memoryview:
    if len(begun) >= length:
        return memoryview(begun)[:length]
    target = memoryview(bytearray(length) if length < 1 << 20 else _reserve(length))[:length]
    target[: len(begun)] = begun
    filled = len(begun)
    while filled < length:
        filled += _some(connection.recv_into(target[filled:]))
    return target


def _receive_chunked(connection: socket.socket, begun: bytes) -> memoryview:
    """The joined chunks. Each receive asks for the rest of a chunk and, behind it, the frame of the next one."""
    if (whole := _joined(begun)) is not None:
        return memoryview(whole)
    target = memoryview(_reserve(RESERVED_BYTES))
    frame = bytearray(begun)
    filled = 0
    scratch = bytearray(FRAME_BYTES)
    while (size := _chunk_size(connection, frame)) > 0:
        at_hand = min(size, len(frame))
        target[filled : filled + at_hand] = frame[:at_hand]
        del frame[:at_hand]
        end, filled = filled + size, filled + at_hand
        while filled < end:
            got = _some(connection.recvmsg_into([target[filled:end], scratch])[0])
            body = min(got, end - filled)
            filled += body
            frame += scratch[: got - body]
        _drop_line_end(connection, frame)
    _drop_line_end(connection, frame)
    return target[:filled]


def _chunk_size(connection: socket.socket, frame: bytearray) -> int:
    """Take the size line off the frame, receiving what is missing of it."""
    while (end := frame.find(b"\r\n")) < 0:
        frame += _received(connection, FRAME_BYTES)
    size = int(frame[:end].split(b";", 1)[0], 16)
    del frame[: end + 2]
    return size


def _drop_line_end(connection: socket.socket, frame: bytearray) -> None:
    while len(frame) < 2:
        frame += _received(connection, 2 - len(frame))
    del frame[:2]


def _joined(chunks: bytes) -> bytes | None:
    """A small chunked body that came whole with its head; None when more of it has to be received."""
    parts: list[bytes] = []
    at = 0
    while (end := chunks.find(b"\r\n", at)) >= 0:
        size = int(chunks[at:end].split(b";", 1)[0], 16)
        at = end + 4 + size
        if at > len(chunks):
            return None
        if not size:
            return b"".join(parts)
        parts.append(chunks[end + 2 : end + 2 + size])
    return None


def _received(connection: socket.socket, limit: int) -> bytes:
    data = connection.recv(limit)
    _some(len(data))
    return data


def _some(got: int) -> int:
    if not got:
        raise ConnectionError("the server ended its answer before the end: the query failed, or was stopped")
    return got


def _reserve(size_bytes: int) -> mmap.mmap:
    """An anonymous mapping of which only what is written takes memory, in huge pages where the kernel has them."""
    area = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    return area

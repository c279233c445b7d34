"""Frames between the keeper and its children: a kind, a length, a body.

Layout: one byte kind, four bytes length (big endian), the body. A MESSAGE body is a JSON object, a DATA body is bytes
of an answer on their way to a client. Nothing a child sends is ever unpickled: a reader runs hostile SQL.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

MESSAGE = 1
DATA = 2
HEADER = struct.Struct("!BI")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class FrameInvalid(Exception):
    """The other side sent bytes that are not a frame."""


def encode(message: dict[str, Any]) -> bytes:
    """The MESSAGE frame of a JSON object."""
    body = _encoder.encode(message)
    return HEADER.pack(MESSAGE, len(body)) + body


def decode(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The JSON object of a MESSAGE body."""
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise FrameInvalid(str(error)) from error


class Pipe:
    """The child's end: blocking, and the only way it talks to the keeper."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rb", buffering=64 * 1024)

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the keeper has closed its end, or has died before it read all that we sent."""
        try:
            header = self._file.read(HEADER.size)
            if len(header) < HEADER.size:
                return None
            kind, length = HEADER.unpack(header)
            if kind != MESSAGE or length > MAX_MESSAGE_BYTES:
                raise FrameInvalid(f"kind {kind}, {length} bytes")
            body = self._file.read(length)
        except ConnectionResetError:  # Why no error: the kernel says so of a keeper that died with something unread.
            return None
        return decode(body) if len(body) == length else None

    def send(self, *messages: dict[str, Any]) -> None:
        self._socket.sendall(b"".join(map(encode, messages)))

    def send_data(self, *chunks: bytes | memoryview) -> None:
        """Send the chunks as one DATA frame; blocks while the keeper does not read: that is the back-pressure."""
        length = sum(len(chunk) for chunk in chunks)
        self._send_all([HEADER.pack(DATA, length), *chunks])

    def _send_all(self, parts: list[bytes | memoryview]) -> None:
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        while views:
            sent = self._socket.sendmsg(views)
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views:
                views[0] = views[0][sent:]

    def send_answer(self, head: dict[str, Any], data: list[bytes | memoryview], end: dict[str, Any]) -> None:
        """A whole small answer in one system call: head, one DATA frame, end."""
        length = sum(len(chunk) for chunk in data)
        self._send_all([encode(head), HEADER.pack(DATA, length), *data, encode(end)])

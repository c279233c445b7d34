"""Writes on a pipeline's wire, as its client and the keeper speak: frames of many writes there, of many answers back.

Layout of a frame: one byte kind, four bytes length (big endian), a JSON body. A connection begins with a HELLO from each
side; the client then sends WRITES, and the keeper ANSWERS, as they come, each naming its write by the client's number.
GOODBYE is the keeper's last frame on a connection: why it closes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pondkeeper.workers.frames import HEADER, FrameInvalid

PROTOCOL: Final = 1
MAX_STATEMENTS: Final = 10_000
MAX_KEY_CHARS: Final = 255

Parameters = list[Any] | dict[str, Any] | None
_Sql = Annotated[str, Meta(min_length=1)]


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WRITES = 2
    ANSWERS = 3
    GOODBYE = 4


class Hello(Struct, forbid_unknown_fields=True):
    """The client's first frame: which database it writes to (None: the only one)."""

    protocol: int
    database: str | None = None


class Welcome(Struct):
    """The keeper's first frame: what may be on its way at once, and the largest frame that it takes."""

    protocol: int
    database: str
    window_writes: int
    window_bytes: int
    max_frame_bytes: int


class WireWrite(Struct, array_like=True, forbid_unknown_fields=True):
    """One write: an atomic list of statements under a number that its connection has on its way once."""

    number: Annotated[int, Meta(ge=1, le=2**53)]
    statements: Annotated[list[tuple[_Sql, Parameters]], Meta(min_length=1, max_length=MAX_STATEMENTS)]
    key: Annotated[str, Meta(pattern=r"\A[\x20-\x7e]{1,255}\Z")] | None = None
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    priority: Literal["interactive", "normal", "background"] = "interactive"
    wait_s: Annotated[float, Meta(gt=0)] | None = None


class WireAnswer(Struct, array_like=True):
    """What became of a write: committed, with version and rows changed, or ended with an error as `to_wire` gives it."""

    number: int
    version: int = 0
    rows_changed: list[int] | None = None
    error: dict[str, Any] | None = None


_encoder = msgspec.json.Encoder()
_writes: msgspec.json.Decoder[list[WireWrite]] = msgspec.json.Decoder(Annotated[list[WireWrite], Meta(min_length=1)])
_answers = msgspec.json.Decoder(list[WireAnswer])
_hello = msgspec.json.Decoder(Hello)
_welcome = msgspec.json.Decoder(Welcome)
_goodbye = msgspec.json.Decoder(dict[str, Any])
# What decoding bytes of a stranger may raise, whatever they are.
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def framed(kind: Kind, body: bytes) -> bytes:
    """The frame around a body."""
    return HEADER.pack(kind, len(body)) + body


def encoded(message: Any) -> bytes:
    """The body of a frame, or a part of one."""
    return _encoder.encode(message)


def writes_frame(writes: Iterable[bytes]) -> bytes:
    """The WRITES frame of writes that are encoded already."""
    return framed(Kind.WRITES, b"[" + b",".join(writes) + b"]")


def decode_writes(body: bytes) -> list[WireWrite]:
    """The writes of a WRITES frame. Raises FrameInvalid."""
    try:
        return _writes.decode(body)
    except _UNDECODABLE as error:
        raise FrameInvalid(str(error)) from error


def decode_answers(body: bytes) -> list[WireAnswer]:
    """The answers of an ANSWERS frame. Raises FrameInvalid."""
    try:
        return _answers.decode(body)
    except _UNDECODABLE as error:
        raise FrameInvalid(str(error)) from error


def decode_hello(body: bytes) -> Hello:
    """The client's first frame. Raises FrameInvalid."""
    try:
        return _hello.decode(body)
    except _UNDECODABLE as error:
        raise FrameInvalid(str(error)) from error


def decode_welcome(body: bytes) -> Welcome:
    """The keeper's first frame. Raises FrameInvalid."""
    try:
        return _welcome.decode(body)
    except _UNDECODABLE as error:
        raise FrameInvalid(str(error)) from error


def decode_goodbye(body: bytes) -> dict[str, Any]:
    """The error of a GOODBYE frame, as `PondkeeperError.from_wire` takes it. Raises FrameInvalid."""
    try:
        return _goodbye.decode(body)
    except _UNDECODABLE as error:
        raise FrameInvalid(str(error)) from error


class FrameReader:
    """Bytes as they arrive, cut into frames of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._partial = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """The frames that are whole now. Raises FrameInvalid at the first that cannot be one."""
        self._partial += data
        start = 0
        try:
            while (body := self._next(start)) is not None:
                kind, body_start, end = body
                yield kind, bytes(memoryview(self._partial)[body_start:end])
                start = end
        finally:
            del self._partial[:start]

    def _next(self, start: int) -> tuple[Kind, int, int] | None:
        """Kind, begin and end of the body of the frame at `start`, once all of it is there."""
        if len(self._partial) - start < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._partial, start)
        if length > self.max_bytes:
            raise FrameInvalid(f"a frame of {length} bytes, and {self.max_bytes} is the most")
        try:
            found = Kind(kind)
        except ValueError:
            raise FrameInvalid(f"a frame of kind {kind}") from None
        body_start = start + HEADER.size
        end = body_start + length
        return (found, body_start, end) if len(self._partial) >= end else None

"""The body of an ingest: from the connection to a file, however large, with a megabyte of it in memory at a time."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import BodyTooLarge, DatabaseUnavailable, DiskFull
from pondkeeper.files.durable import PRIVATE_FILE
from pondkeeper.files.room import insist_on_room, is_full
from pondkeeper.server.exchange import ClientGone
from pondkeeper.server.scopes import header

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

PIECE_BYTES: Final = 1024 * 1024
MOST_AT_ONCE: Final = 512  # pieces in one system call; the kernel takes 1024


@dataclass(frozen=True)
class Received:
    """A body that has arrived as a whole: `small` in memory, or a file at `path`, which is the caller's to remove."""

    small: bytes | None
    path: Path | None
    sha256: str | None


async def receive_body(
    scope: Scope, receive: Receive, path: Path, *, max_bytes: int, small_bytes: int = 0, wants_digest: bool = False
) -> Received:
    """Take the body in; one of at most `small_bytes` stays in memory, a larger one is written to `path`.

    Raises BodyTooLarge, DiskFull or ClientGone; then nothing is left at `path`.
    """
    announced = header(scope, b"content-length")
    if announced is not None and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    writing = _File(path, int(announced or 0), wants_digest=wants_digest)
    waiting: list[bytes] = []
    waiting_bytes = total_bytes = 0
    is_whole = False
    try:
        while not is_whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            is_whole = not message.get("more_body", False)
            waiting.append(piece)
            waiting_bytes, total_bytes = waiting_bytes + len(piece), total_bytes + len(piece)
            if total_bytes > max_bytes:
                raise _too_large(max_bytes)
            if small_bytes and total_bytes <= small_bytes:
                if is_whole:
                    return Received(b"".join(waiting), None, None)
            elif waiting_bytes >= PIECE_BYTES or is_whole:
                await writing.add(waiting)
                waiting, waiting_bytes = [], 0
        return Received(None, path, await writing.close())
    except BaseException:  # Why: also a client that goes away must not leave half of a body behind.
        await asyncio.shield(writing.remove())
        raise


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {max_bytes:,} bytes.",
        remedy="Send it in pieces, or raise `ingest.max_body_bytes`.",
        max_bytes=max_bytes,
    )


class _File:
    """The file, written by a thread while the event loop receives the next piece."""

    def __init__(self, path: Path, announced_bytes: int, *, wants_digest: bool) -> None:
        self._path = path
        self._announced_bytes = announced_bytes
        self._descriptor = -1
        self._digest: Any = hashlib.sha256() if wants_digest else None
        self._writing: asyncio.Future[None] | None = None

    async def add(self, pieces: list[bytes]) -> None:
        """Write the pieces, once those before are written."""
        await self._done()
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, pieces))

    async def close(self) -> str | None:
        """Finish the file: the SHA-256 of it, in hex, where it was asked for."""
        await self._done()
        os.close(self._descriptor)
        self._descriptor = -1
        return self._digest.hexdigest() if self._digest is not None else None

    async def remove(self) -> None:
        """Leave nothing behind."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
            self._writing.exception()
        await asyncio.to_thread(self._unlink)

    async def _done(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                self._writing = writing
                raise

    def _write(self, pieces: list[bytes]) -> None:
        try:
            if self._descriptor < 0:
                insist_on_room(self._path.parent, self._announced_bytes)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, PRIVATE_FILE)
            if self._digest is not None:
                for piece in pieces:
                    self._digest.update(piece)
            insist_on_room(self._path, sum(map(len, pieces)))
            self._write_all([memoryview(piece) for piece in pieces if piece])
        except OSError as error:
            if is_full(error):
                raise DiskFull(private=str(error)) from error
            raise DatabaseUnavailable("The body could not be written to the keeper's disk.", private=str(error)) from error

    def _write_all(self, rest: list[memoryview]) -> None:
        """Write the pieces as they are: to join them first would copy all of them once more."""
        while rest:
            written = os.writev(self._descriptor, rest[:MOST_AT_ONCE])
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]

    def _unlink(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._path.unlink(missing_ok=True)

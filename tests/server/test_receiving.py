"""The body of an ingest on its way to a file."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pondkeeper.errors import BodyTooLarge, DiskFull
from pondkeeper.server import receiving
from pondkeeper.server.exchange import ClientGone
from pondkeeper.server.receiving import Received, receive_body

Receive = Callable[[], Awaitable[dict[str, Any]]]


def pieces(*parts: bytes, gone: bool = False) -> Receive:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return next(left)

    return receive


async def taken(path: Path, receive: Receive, announced: int | None = None, **options: Any) -> Received:
    headers = [] if announced is None else [(b"content-length", b"%d" % announced)]
    return await receive_body({"headers": headers}, receive, path, **{"max_bytes": 10**9} | options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=3000), max_size=30), st.integers(1, 5000), st.integers(0, 3000))
def test_the_file_is_the_body(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], piece_bytes: int, small_bytes: int) -> None:
    """Byte by byte, whatever comes at once, with its digest; a small one stays in memory."""
    path = tmp_path_factory.mktemp("body") / "x.receiving"
    before, receiving.PIECE_BYTES = receiving.PIECE_BYTES, piece_bytes
    try:
        found = asyncio.run(taken(path, pieces(*parts), small_bytes=small_bytes, wants_digest=True))
    finally:
        receiving.PIECE_BYTES = before
    body = b"".join(parts)
    if small_bytes and len(body) <= small_bytes:
        assert found == Received(body, None, None)
        assert not path.exists()
        return
    assert found.path == path
    assert path.read_bytes() == body
    assert path.stat().st_mode & 0o777 == 0o600
    assert found.sha256 == hashlib.sha256(body).hexdigest()


async def test_too_large(tmp_path: Path) -> None:
    """Announced or not, and nothing stays."""
    path = tmp_path / "x"
    with pytest.raises(BodyTooLarge):
        await taken(path, pieces(), announced=101, max_bytes=100)
    with pytest.raises(BodyTooLarge):
        await taken(path, pieces(b"x" * 60, b"x" * 60), max_bytes=100)
    assert not path.exists()


async def test_a_client_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "PIECE_BYTES", 10)
    with pytest.raises(ClientGone):
        await taken(tmp_path / "x", pieces(b"x" * 60, b"x" * 60, gone=True))
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is announced must fit before a byte is written; what the system refuses later leaves nothing."""
    with pytest.raises(DiskFull):
        await taken(tmp_path / "x", pieces(b"x"), announced=10**18, max_bytes=10**19)

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(DiskFull):
        await taken(tmp_path / "x", pieces(b"x"))
    assert list(tmp_path.iterdir()) == []


async def test_a_system_that_takes_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write goes on where it stopped."""
    real = os.writev

    def short(descriptor: int, parts: list[memoryview]) -> int:
        return real(descriptor, [parts[0][:7]])

    monkeypatch.setattr(os, "writev", short)
    monkeypatch.setattr(receiving, "PIECE_BYTES", 50)
    body = [bytes([n]) * 23 for n in range(20)]

    await taken(tmp_path / "x", pieces(*body))

    assert (tmp_path / "x").read_bytes() == b"".join(body)

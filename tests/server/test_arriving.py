"""Bodies on their way: many that never end take no more memory together than there is for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pondkeeper.errors import BodyTooLarge, QueueFull
from pondkeeper.server import bodies
from pondkeeper.server.arriving import Arriving
from pondkeeper.server.bodies import read_body

MAX_BYTES = 100
SCOPE: dict[str, Any] = {"headers": []}


class Sender:
    """Sends parts of ten bytes, and the last when it is told to."""

    def __init__(self, parts: int) -> None:
        self.left = parts
        self.may_end = asyncio.Event()

    async def __call__(self) -> dict[str, Any]:
        self.left -= 1
        if self.left <= 0:
            await self.may_end.wait()
        return {"type": "http.request", "body": b"x" * 10, "more_body": self.left > 0}


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> Arriving:
    arriving = Arriving(most_bytes=300)
    monkeypatch.setattr(bodies, "ARRIVING", arriving)
    return arriving


async def test_bodies_that_never_end_are_refused_beyond_what_there_is_for_them(arriving: Arriving) -> None:
    """Six of 50 bytes fit; the next is refused, as long as they hold theirs; those that end give theirs back."""
    senders = [Sender(6) for _ in range(6)]
    reading = [asyncio.create_task(read_body(SCOPE, sender, MAX_BYTES)) for sender in senders]
    await asyncio.sleep(0.01)
    assert arriving.size_bytes == 300
    with pytest.raises(QueueFull):
        await read_body(SCOPE, Sender(3), MAX_BYTES)
    assert arriving.size_bytes == 300
    small = Sender(1)
    small.may_end.set()
    assert await read_body(SCOPE, small, MAX_BYTES) == b"x" * 10  # what comes in one piece waits for nothing
    reading[0].cancel()
    await asyncio.wait({reading[0]})
    for sender in senders[1:]:
        sender.may_end.set()
    assert [len(body) for body in await asyncio.gather(*reading[1:])] == [60] * 5
    assert arriving.size_bytes == 0


async def test_a_body_too_large_is_told_so_and_gives_back_what_it_had(arriving: Arriving) -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(SCOPE, Sender(20), MAX_BYTES)
    assert arriving.size_bytes == 0
    large = Sender(1)
    large.may_end.set()
    with pytest.raises(BodyTooLarge):
        await read_body(SCOPE, large, 5)


async def test_two_of_the_largest_bodies_always_have_room(arriving: Arriving) -> None:
    sender = Sender(50)
    sender.may_end.set()
    assert len(await read_body(SCOPE, sender, 500)) == 500

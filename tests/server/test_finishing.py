"""What is under way ends, whatever becomes of the request that asked for it."""

from __future__ import annotations

import asyncio

import pytest

from pondkeeper.errors import OutcomeUnknown
from pondkeeper.server.finishing import Finishing


async def test_work_outlives_a_request_that_is_cancelled() -> None:
    """Its caller is told that the outcome is unknown, and the work goes on to its end."""
    begun, may_end, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> int:
        begun.set()
        await may_end.wait()
        done.set()
        return 7

    waiting = asyncio.create_task(Finishing[int]("ingest").wait_for(work(), None))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(OutcomeUnknown, match="of the ingest"):
        await waiting
    may_end.set()
    async with asyncio.timeout(10):
        await done.wait()

"""Waiting for a child whose work may rightly take an hour: as long as it shows a sign of work."""

from __future__ import annotations

import asyncio
from typing import Any

from pondkeeper.errors import WorkerDied
from pondkeeper.workers.child import Child, ChildGone


async def next_sign(child: Child, who: str, silence_s: float) -> dict[str, Any] | bytes:
    """The child's next frame. `who` is what it is called in errors.

    Raises WorkerDied when it dies, and when it has shown no sign of work for `silence_s`: then it is taken for hung and ended.
    """
    done = child.work_done()
    while True:
        try:
            async with asyncio.timeout(silence_s):
                return await child.next_frame()
        except ChildGone as gone:
            raise WorkerDied(f"{who} died.", status=gone.status) from gone
        except TimeoutError:
            before, done = done, child.work_done()
            if done == before:
                child.kill()
                raise WorkerDied(f"{who} did nothing for {silence_s:g} s and was ended.") from None


async def next_message(child: Child, who: str, silence_s: float) -> dict[str, Any]:
    """The next frame, which is a message; raises what `next_sign` raises, and WorkerDied when it is data."""
    message = await next_sign(child, who, silence_s)
    if not isinstance(message, dict):
        child.kill()
        raise WorkerDied(f"{who} sent what it never sends, and was ended.")
    return message

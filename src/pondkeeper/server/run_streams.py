"""A run as it goes on: what its log gains, and its status whenever that changes, until it has ended.

Why by looking and not by events: the files of a run are the truth, also of one that outlived its keeper, and nothing is missed.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.jobs.logs import read_piece

if TYPE_CHECKING:
    from pathlib import Path

LOOK_EVERY_S: Final = 0.25
HEARTBEAT_S: Final = 1.0  # Why so often: who waits with a time limit looks at the clock when something comes

Status = dict[str, Any]
LookAtRun = Callable[[], Awaitable[Status]]
MayGoOn = Callable[[], Awaitable[bool]]  # which waits until it is time to look again


@dataclass
class LogReading:
    """A log file that is read piece by piece; one that is not there yet, or not any more, is empty."""

    file: Path
    offset: int = 0

    async def rest(self) -> AsyncIterator[bytes]:
        """What has been written since."""
        while piece := await asyncio.to_thread(read_piece, self.file, self.offset):
            self.offset += len(piece)
            yield piece


async def log_pieces(
    log: LogReading, look: LookAtRun, is_over: Callable[[Status], bool], may_go_on: MayGoOn
) -> AsyncIterator[bytes]:
    """What is in the log and what is added to it, until the run has ended. Raises StreamEnded when it may not go on before."""
    while True:
        has_ended = is_over(await look())  # Why before reading: what it wrote last is read after its end is known.
        async for piece in log.rest():
            yield piece
        if has_ended:
            return
        if not await may_go_on():
            raise StreamEnded


async def happenings(
    log: LogReading | None, look: LookAtRun, is_over: Callable[[Status], bool], may_go_on: MayGoOn
) -> AsyncIterator[dict[str, Any] | None]:
    """`{"run": status}` at first and at each change, `{"log": text, "offset": …}`; None when nothing came for a while.

    The last is the status at its end. Raises StreamEnded when it may not go on before that.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown: Status | None = None
    said_at = time.monotonic()
    while True:
        status = await look()
        has_ended = is_over(status)
        if log is not None:
            async for piece in log.rest():
                text = decoder.decode(piece)
                yield {"log": text, "offset": log.offset - len(decoder.getstate()[0])}  # Why: of a cut character, its begin
                said_at = time.monotonic()
        if status != shown:
            yield {"run": status}
            shown, said_at = status, time.monotonic()
        if has_ended:
            return
        if not await may_go_on():
            raise StreamEnded
        if time.monotonic() - said_at > HEARTBEAT_S:
            yield None
            said_at = time.monotonic()


class StreamEnded(Exception):
    """The stream ends before the run does: the keeper stops, or the key is not live any more."""

"""An answer on its way from a reader to a client, and the ladder that ends it when it must end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from pondkeeper.errors import OutOfMemory, PondkeeperError, QueryCancelled, QueryTimedOut, ReadersBusy, WorkerDied
from pondkeeper.readers.line import RETRY_AFTER_S
from pondkeeper.workers import precedence
from pondkeeper.workers.child import ChildGone

if TYPE_CHECKING:
    from pondkeeper.readers.reader import Reader

LONG_S = 0.03
SHORTEST_MEANT_S = 0.01  # who gives a query less time than it takes to hand it over has not waited for anybody
LONG_AND_NEVER_BACK_S = 0.5


@dataclass(frozen=True)
class Ending:
    """How an answer ended: rows sent, whether a limit cut it, and which."""

    row_count: int
    truncated: bool
    limit: str | None


class SnapshotGone(Exception):
    """The snapshot was retired before the reader opened it; the newest one is to be asked instead."""


class ReaderWasDead(Exception):
    """The reader died before it had read the query, so that another may be asked."""


class AnswerStream:
    """The bytes of one answer. The deadline covers execution and streaming: it is kept by killing the reader.

    `small` is the whole body when the answer came in one piece, with `ending` known; else iterate.
    """

    def __init__(self, reader: Reader, query_id: str, version: int, kill_after_s: float) -> None:
        self.query_id = query_id
        self.version = version
        self.content_type = ""
        self.ending: Ending | None = None
        self.lag_s: float | None = None  # of a replica: how far behind it was
        self.small: bytes | None = None
        self._reader = reader
        self._number = reader.next_number()
        self._kill_after_s = kill_after_s
        self._reason: PondkeeperError | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._finished = False
        self._first: list[bytes] = []
        self._on_finished: Callable[[], None] | None = None

    @property
    def stopped_by(self) -> str | None:
        """The code of what stopped the query before its end, if anything did."""
        return None if self._reason is None else self._reason.code

    def on_finished(self, callback: Callable[[], None]) -> None:
        """Call back when the reader is done with this answer; at once if it is."""
        if self._finished:
            callback()
        else:
            self._on_finished = callback

    async def begin(self, message: dict[str, Any], deadline: float, timeout_s: float) -> None:
        """Send the query and wait for the head of its answer. Raises PondkeeperError, SnapshotGone or ReaderWasDead."""
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_at(deadline, self.stop, _too_late(timeout_s, left_s=deadline - loop.time())))
        self._timers.append(loop.call_later(long_after_s(), self._reader.let_others_go_first))
        self._reader.child.exited.add_done_callback(self._on_exit)
        self._reader.child.send({**message, "op": "query", "number": self._number})
        try:
            await self._read_head()
        except asyncio.CancelledError:
            self.abandon()
            raise

    async def _read_head(self) -> None:
        frame = await self._next()
        if not isinstance(frame, dict) or not isinstance(content_type := frame.get("content_type"), str):
            raise self._distrust()
        self.content_type = content_type
        while (ready := self._reader.child.frame_ready()) is not None:
            if isinstance(ready, bytes):
                self._first.append(ready)
                continue
            self._accept(ready)
            self.small = b"".join(self._first)
            return

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the body. Raises PondkeeperError when the answer ends before it is whole."""
        if self.small is not None:
            yield self.small
            return
        try:
            for piece in self._first:
                yield piece
            self._first.clear()
            while isinstance(frame := await self._next(), bytes):
                yield frame
        finally:
            self.abandon()

    async def _next(self) -> dict[str, Any] | bytes:
        """The next frame after judging it: `end` ends the stream, `error` and death raise."""
        try:
            frame = await self._reader.child.next_frame()
        except ChildGone as gone:
            self._finish()
            if gone.unread and self._reason is None:
                raise ReaderWasDead from gone
            raise self._reason or died(gone.status) from gone
        self._reader.was_useful = True
        if isinstance(frame, dict):
            self._accept(frame)
        return frame

    def _accept(self, frame: dict[str, Any]) -> None:
        try:
            self._judge(frame)
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise self._distrust() from error

    def _distrust(self) -> WorkerDied:
        """The reader said what no reader says: hostile SQL may have taken it over, and it gets no second chance."""
        self._reader.child.kill()
        self._finish()
        return WorkerDied("The reader that ran the query said what no reader says, and was ended.")

    def _judge(self, frame: dict[str, Any]) -> None:
        kind = frame["op"]
        if kind == "head":
            return
        if kind not in ("end", "error", "gone"):
            raise TypeError(kind)
        error = PondkeeperError.from_wire(frame["error"]) if kind == "error" else None
        self._reader.is_spent = isinstance(error, OutOfMemory)
        self._finish()
        if kind == "gone":
            raise SnapshotGone
        if error is not None:
            raise self._reason or error
        if self._reason is not None:
            raise self._reason
        self.ending = msgspec.convert(frame, Ending)

    def stop(self, reason: PondkeeperError) -> None:
        """Interrupt the reader, and kill it when it is not done after the grace; `reason` is what the client gets."""
        if self._finished or self._reason is not None:
            return
        self._reason = reason
        self._reader.was_useful = True  # Why: if it dies of this, that is our doing and no failure at birth.
        self._reader.child.interrupt(self._number)
        self._timers.append(asyncio.get_running_loop().call_later(self._kill_after_s, self._reader.child.kill))

    async def cancel(self) -> None:
        """Stop the query because its client has gone."""
        self.abandon()

    def abandon(self) -> None:
        """Nobody reads this answer any more: stop it and take the rest away, so that the reader is free again."""
        if self._finished:
            return
        self.stop(QueryCancelled("The query was cancelled because its client went away."))
        self._reader.side_tasks.start(self._drain())

    async def _drain(self) -> None:
        try:
            while not self._finished:
                await self._next()
        except (PondkeeperError, SnapshotGone, ReaderWasDead):  # the end that we wait for; nobody is left to tell
            return

    def _on_exit(self, _: asyncio.Future[int]) -> None:
        """The reader is dead: nothing runs any more, also where a client that has stalled will never ask for the rest."""
        self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        self._reader.child.exited.remove_done_callback(self._on_exit)
        for timer in self._timers:
            timer.cancel()
        self._reader.release()
        if self._on_finished is not None:
            self._on_finished()


def long_after_s() -> float:
    """When a query is a long one, which lets others go first. Why later where that cannot be taken back: it costs a reader."""
    return LONG_S if precedence.can_be_taken_back() else LONG_AND_NEVER_BACK_S


def _too_late(timeout_s: float, left_s: float) -> PondkeeperError:
    """The error of a query that is stopped at its deadline: its own doing, unless most of its time went by before its turn."""
    waited_s = timeout_s - left_s
    if waited_s > timeout_s / 2 and timeout_s >= SHORTEST_MEANT_S:
        message = f"The query waited {waited_s:.3g} s of its {timeout_s:g} s for its turn, and did not finish in the rest."
        return ReadersBusy(message, retry_after_s=RETRY_AFTER_S)
    return QueryTimedOut(f"The query did not finish within {timeout_s:g} s and was stopped.", timeout_s=timeout_s)


def died(status: int) -> WorkerDied:
    """The error for a reader that ended by itself with `status`."""
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return WorkerDied(f"The reader that ran the query died ({how}).", status=status)

"""The queue of writes: requests in order, each with a deadline, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import structlog

from pondkeeper.errors import (
    DatabaseBusy,
    KeeperStopping,
    OutcomeUnknown,
    PondkeeperError,
    QueryCancelled,
    QueueFull,
    WorkerDied,
    WriteTimedOut,
)
from pondkeeper.workers.child import ChildGone
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.writer.desk import WriterDesk, WriterLimits

COMMIT_GRACE_S = 10.0
LEAST_CLOSING_S = 2.0
_log = structlog.get_logger(__name__)


@dataclass
class Write:
    """One atomic list of statements in the queue; `outcome` is what became of it. Number 0: not sent to a writer yet."""

    write_id: str
    statements: list[tuple[str, Any]]
    timeout_s: float
    deadline: float
    outcome: asyncio.Future[dict[str, Any]]
    number: int = 0
    unread: asyncio.Future[dict[str, Any]] | None = None
    is_committing: bool = False
    reason: PondkeeperError | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def settle(self, error: PondkeeperError) -> None:
        """It ended with this error, unless its outcome is known already."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class WriteQueue:
    """Requests for one database, first come first served, applied by the writer at the desk."""

    def __init__(self, desk: WriterDesk, limits: WriterLimits) -> None:
        self.desk = desk
        self._limits = limits
        self._waiting: deque[Write] = deque()
        self._current: Write | None = None
        self._wake = asyncio.Event()
        self._tasks = SideTasks()
        self._stopping = False
        self._number = 0
        desk.on_request, desk.on_death = self._on_frame, self._on_death

    def start(self) -> None:
        self._tasks.start(self._serve())

    async def stop(self, grace_s: float) -> None:
        """Refuse new writes, let the running ones end within the grace, close the file in order."""
        self._stopping = True
        deadline = time.monotonic() + grace_s
        while self.depth and time.monotonic() < deadline:  # noqa: ASYNC110  Why: once per life; an event would need care in four places
            await asyncio.sleep(0.02)
        while self._waiting:
            self._waiting.popleft().settle(KeeperStopping())
        if self._current is not None:
            self.stop_write(self._current, KeeperStopping())
        await self.desk.stop(max(LEAST_CLOSING_S, deadline - time.monotonic()))
        self._tasks.cancel()

    @property
    def depth(self) -> int:
        """How many requests wait or run."""
        return len(self._waiting) + (self._current is not None)

    # Requests

    async def execute(self, write_id: str, statements: list[tuple[str, Any]], timeout_s: float) -> dict[str, Any]:
        """Wait for the turn, apply, commit: `{"version", "rows_changed"}`.

        Raises PondkeeperError: nothing was applied; or OutcomeUnknown.
        """
        if self._stopping:
            raise KeeperStopping
        if self.depth >= self._limits.max_waiting:
            raise QueueFull(f"{self.depth} writes wait already.", retry_after_s=1)
        loop = asyncio.get_running_loop()
        write = Write(write_id, statements, timeout_s, loop.time() + timeout_s, loop.create_future())
        timed_out = WriteTimedOut(f"The write did not finish within {timeout_s:g} s and was stopped.", timeout_s=timeout_s)
        # Why later than the deadline: the writer keeps it too while it waits, and knows for whom it waited in vain.
        write.timers.append(loop.call_at(write.deadline + self._limits.kill_after_s, self.stop_write, write, timed_out))
        self._waiting.append(write)
        self._wake.set()
        try:
            return await asyncio.shield(write.outcome)
        except asyncio.CancelledError:
            if write in self._waiting:  # Why: one that has begun goes on; its client may ask later what became of it.
                self.stop_write(write, QueryCancelled("The write was dropped because its client went away."))
                write.outcome.exception()
            raise
        finally:
            for timer in write.timers:
                timer.cancel()

    def cancel(self, write_id: str, reason: PondkeeperError) -> None:
        """Stop the write of that id, waiting or running; one that is committing is past that."""
        for write in [*self._waiting, *([self._current] if self._current else [])]:
            if write.write_id == write_id:
                self.stop_write(write, reason)

    def stop_write(self, write: Write, reason: PondkeeperError) -> None:
        """Take a waiting write out of the queue; interrupt a running one and kill the writer if it is deaf."""
        if write is self._current and write.number:
            write.reason = write.reason or reason
            self.desk.interrupt(write.number)
            self._kill_later(write, self._limits.kill_after_s)
        elif write is self._current:
            write.settle(self._busy_or(reason))
        elif write in self._waiting:
            self._waiting.remove(write)
            write.settle(self._busy_or(reason))

    def _kill_later(self, write: Write, after_s: float) -> None:
        def kill() -> None:
            if write is not self._current or write.outcome.done():
                return
            if write.is_committing and after_s < COMMIT_GRACE_S:
                self._kill_later(write, COMMIT_GRACE_S)  # Why: a kill now would only make the outcome unknown.
                return
            self.desk.kill()

        write.timers.append(asyncio.get_running_loop().call_later(after_s, kill))

    def _busy_or(self, reason: PondkeeperError) -> PondkeeperError:
        """For a write that was out of time before it had its turn: who held the database meanwhile."""
        waiting_for = self.desk.waiting_for
        if waiting_for is None or not isinstance(reason, WriteTimedOut):
            return reason
        timeout_s = reason.details["timeout_s"]
        return DatabaseBusy(f"The write waited {timeout_s:g} s in vain for {named(waiting_for)}.", **waiting_for)

    # The loop

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            write = self._current = self._waiting.popleft()
            try:
                await self._apply(write)
            except PondkeeperError as error:
                write.settle(error)
            except Exception as error:  # noqa: BLE001  Why: whatever one write meets, the next ones must have their turn.
                _log.exception("a write met a fault of the keeper")
                write.settle(PondkeeperError(private=repr(error)))
            finally:
                self._current = None

    async def _apply(self, write: Write) -> None:
        """Send it to the writer; again to a successor, if the one before died without having read it."""
        loop = asyncio.get_running_loop()
        while True:
            child = await self.desk.started()
            if write.outcome.done():
                return
            self._number += 1
            timeout_s = max(0.0, write.deadline - loop.time())
            child.send({"op": "apply", "number": self._number, "statements": write.statements, "timeout_s": timeout_s})
            write.number, write.unread = self._number, loop.create_future()
            await asyncio.wait({write.outcome, write.unread}, return_when=asyncio.FIRST_COMPLETED)

    # What became of it

    def _on_frame(self, frame: dict[str, Any]) -> None:
        write = self._current
        if write is None or write.number != frame["number"]:  # there is only one at a time
            raise RuntimeError(f"the writer speaks of request {frame['number']}, which does not run")
        if frame["op"] == "committing":
            write.is_committing = True
        elif frame["op"] == "applied":
            if not write.outcome.done():
                write.outcome.set_result({"version": frame["version"], "rows_changed": frame["rows_changed"]})
        else:
            write.settle(_verdict(write, frame["op"], PondkeeperError.from_wire(frame["error"])))

    def _on_death(self, gone: ChildGone) -> None:
        write, status = self._current, gone.status
        if write is None or write.unread is None or not write.number:
            return
        if gone.unread and not write.is_committing and write.reason is None:
            write.number = 0
            write.unread.set_result({})
            return
        if write.is_committing:
            write.settle(OutcomeUnknown("The writer died while it committed.", status=status))
        elif write.reason is not None:
            write.settle(self._busy_or(write.reason))
        else:
            message = "The writer that ran the statement died; nothing of it was applied."
            write.settle(WorkerDied(message, status=status))


def _verdict(write: Write, op: str, cause: PondkeeperError) -> PondkeeperError:
    """What the client is told: why we stopped the write, unless the writer knows for whom it waited in vain."""
    if op == "unknown":
        return OutcomeUnknown(f"The commit failed in mid-air: {cause.message}", cause=cause.code)
    if write.reason is None or (isinstance(write.reason, WriteTimedOut) and isinstance(cause, DatabaseBusy)):
        return cause
    return write.reason


def named(waiting_for: dict[str, Any]) -> str:
    """Whom the writer waits for, in words: the holder of the lease, a program that did not ask, or those before it."""
    if holder := waiting_for.get("holder"):
        return f"{holder['who']} (pid {holder['pid']})"
    if foreign := waiting_for.get("foreign"):
        return f"{foreign.get('holder_program', 'a program')} (pid {foreign.get('holder_pid', 'unknown')})"
    return f"{waiting_for.get('ahead', 0)} programs that were before it"

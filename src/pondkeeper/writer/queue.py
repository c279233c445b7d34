"""The queue of writes: requests in order, each with a deadline, and what became of each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import structlog

from pondkeeper.errors import (
    DatabaseBusy,
    DatabaseUnreadable,
    KeeperStopping,
    OutcomeUnknown,
    OutOfMemory,
    PondkeeperError,
    QueryCancelled,
    QueueFull,
    WorkerDied,
    WriteTimedOut,
)
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.writer.batch_size import BatchSize
from pondkeeper.writer.desk import WriterDesk, WriterLimits
from pondkeeper.writer.gathering import Gathering
from pondkeeper.writer.order import Order, Priority
from pondkeeper.writer.timings import Timings
from pondkeeper.writer.write import Demand, Ending, Write

COMMIT_GRACE_S = 10.0
LEAST_CLOSING_S = 2.0
MAX_BATCH_BYTES = 4 * 1024 * 1024
ENDED_ITSELF = 1  # the exit code of a writer that saw that it must not go on
_PATIENCE = "Send it again later, or let it wait longer: the request's `wait_s`, up to the server's `writer.wait_s`."
_log = structlog.get_logger(__name__)


class WriteQueue:
    """Requests for one database, first come first served, handed in batches to the writer at the desk."""

    def __init__(self, desk: WriterDesk, limits: WriterLimits) -> None:
        self.desk = desk
        self._limits = limits
        self._waiting = Order()
        self._batch: dict[int, Write] = {}
        self._wake = asyncio.Event()
        self._batch_over = asyncio.Event()
        self._tasks = SideTasks()
        self._stopping = False
        self._number = 0
        self._batch_size = BatchSize()
        self._gathering = Gathering()
        self._running_timer: asyncio.TimerHandle | None = None
        self._running_until = math.inf
        self.may_forget = True  # whether outcomes of keys that are older than they need be kept may go
        self.waits = Timings()
        desk.on_request, desk.on_death, desk.on_overfull = self._on_frame, self._on_death, self._on_overfull

    def start(self) -> None:
        self._tasks.start(self._serve())

    async def stop(self, grace_s: float) -> None:
        """Refuse new writes, let the running ones end within the grace, close the file in order."""
        self._stopping = True
        deadline = time.monotonic() + grace_s
        while self.depth and time.monotonic() < deadline:  # noqa: ASYNC110  Why: once per life; an event would need care in four places
            await asyncio.sleep(0.02)
        while self._waiting:
            self._waiting.pop().settle(KeeperStopping())
        for write in list(self._batch.values()):
            self.stop_write(write, KeeperStopping())
        await self.desk.stop(max(LEAST_CLOSING_S, deadline - time.monotonic()))
        self._tasks.cancel()

    @property
    def depth(self) -> int:
        """How many requests wait or run."""
        return len(self._waiting) + len(self._batch)

    @property
    def writes(self) -> list[Write]:
        """The visible order: what the writer has, then what waits, as it would have its turns."""
        return [*self._batch.values(), *self._waiting]

    @property
    def oldest_s(self) -> float:
        """How long the longest-waiting request has been here."""
        return max((write.age_s for write in self.writes), default=0.0)

    def depths(self) -> dict[str, int]:
        """How many requests wait or run, by priority."""
        found = dict.fromkeys((priority.value for priority in Priority), 0)
        for write in self.writes:
            found[write.priority.value] += 1
        return found

    # Requests

    @property
    def room(self) -> int:
        """How many more writes may wait or run."""
        return self._limits.max_waiting - self.depth

    def submit(self, demand: Demand, outcome: Ending, on_begun: Callable[[], None]) -> Write:
        """Put a write in order; `outcome` is told what becomes of it. Raises KeeperStopping, QueueFull or DatabaseUnreadable.

        The caller calls `stop_waiting` after `patience_s`, for any number of writes by one timer.
        """
        if self._stopping:
            raise KeeperStopping
        if isinstance(damage := self.desk.publish_error, DatabaseUnreadable):
            raise damage.again()  # Why: DuckDB may well take it, and it would be lost with the file when that is replaced.
        if self.room <= 0:
            raise QueueFull(f"{self.depth} writes wait already.", retry_after_s=1)
        write = Write(demand, asyncio.get_running_loop().time(), outcome, on_begun)
        write.deadline += write.wait_s
        self._waiting.append(write)
        if len(self._waiting) >= self._gathering.enough:
            self._wake.set()
        return write

    def patience_s(self, wait_s: float) -> float:
        """When to stop a write that may wait so long. Later than its deadline: the writer keeps that too while it waits
        for the file, and knows best what it waited for."""
        return wait_s + self._limits.kill_after_s

    def stop_waiting(self, write: Write) -> None:
        """Stop the write if its turn has not come."""
        if not write.has_begun and not write.outcome.done():
            self.stop_write(write, self._waited_in_vain(write))

    async def execute(self, demand: Demand, on_begun: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait for the turn, apply, commit: `{"version", "rows_changed"}`. `on_begun` is told of the turn.

        Raises PondkeeperError: nothing was applied; or OutcomeUnknown.
        """
        outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        write = self.submit(demand, outcome, on_begun)
        outcome.add_done_callback(lambda _: demand.on_settled())
        self._limit_waiting(write)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            if not write.has_begun:  # Why: one that has begun goes on; its client may ask later what became of it.
                self.stop_write(write, QueryCancelled("The write was dropped because its client went away."))
            outcome.add_done_callback(lambda outcome: outcome.exception())  # nobody is left to be told
            raise
        finally:
            for timer in write.timers:
                timer.cancel()

    def cancel(self, write_id: str, reason: PondkeeperError) -> None:
        """Stop the write of that id, waiting or running; one that is committing is past that."""
        for write in self.writes:
            if write.demand.write_id == write_id:
                self.stop_write(write, reason)

    def stop_write(self, write: Write, reason: PondkeeperError) -> None:
        """Take a waiting write out of the queue; interrupt one that the writer has, and kill the writer if it is deaf."""
        if write.number:
            write.reason = write.reason or reason
            self.desk.interrupt(write.number)
            self._kill_later(write, write.number, self._limits.kill_after_s)
        elif write in self._waiting:
            self._waiting.remove(write)
            write.settle(reason)

    def _kill_later(self, write: Write, number: int, after_s: float) -> None:
        def kill() -> None:
            if write.number != number or write.outcome.done():
                return
            if write.is_committing and after_s < COMMIT_GRACE_S:
                self._kill_later(write, number, COMMIT_GRACE_S)  # Why: a kill now would only make the outcome unknown.
                return
            self.desk.kill()

        write.timers.append(asyncio.get_running_loop().call_later(after_s, kill))

    # Deadlines: one for the turn to come, and from the turn on one for the end

    def _limit_waiting(self, write: Write) -> None:
        """Stop it when its turn has not come in time."""
        at = self.patience_s(write.deadline)
        write.timers.append(asyncio.get_running_loop().call_at(at, self.stop_waiting, write))

    def _limit_running(self, by: float) -> None:
        """Look at the running writes at that time at the latest; one timer for the whole batch."""
        if by < self._running_until:
            if self._running_timer is not None:
                self._running_timer.cancel()
            self._running_until = by
            self._running_timer = asyncio.get_running_loop().call_at(by, self._stop_late_ones)

    def _stop_late_ones(self) -> None:
        """Stop each write whose turn has lasted too long."""
        now, self._running_until, self._running_timer = asyncio.get_running_loop().time(), math.inf, None
        running = [write for write in self._batch.values() if write.has_begun and write.reason is None]
        for write in running:
            if write.deadline > now:
                self._limit_running(write.deadline)
                continue
            timeout_s = write.demand.timeout_s
            message = f"The write did not finish within {timeout_s:g} s of its turn and was stopped."
            self.stop_write(write, WriteTimedOut(message, timeout_s=timeout_s))

    def _waited_in_vain(self, write: Write, cause: PondkeeperError | None = None) -> PondkeeperError:
        """For a write whose turn did not come in time: who had the database meanwhile, and who was before it."""
        if write.number:
            before = sum(number < write.number for number in self._batch)
        else:
            before = self._waiting.before(write) + len(self._batch)
        waited, wait_s = f"The write waited {write.wait_s:g} s in vain", write.wait_s
        waiting_for = self.desk.waiting_for
        if waiting_for is not None:
            message = f"{waited} for {named(waiting_for)}; {before} writes were before it."
            return DatabaseBusy(message, remedy=_PATIENCE, **waiting_for, wait_s=wait_s, writes_before=before)
        if cause is not None:
            return cause
        message = f"{waited} for its turn: {before} writes were before it"
        if holder := self.desk.holder():
            message += f"; the keeper's writer (pid {holder['pid']}) has had the lease since {holder['since']}"
        return WriteTimedOut(f"{message}.", remedy=_PATIENCE, holder=holder, wait_s=wait_s, writes_before=before)

    # The loop

    async def _serve(self) -> None:
        while True:
            await self._gathered()
            try:
                child = await self.desk.started()
            except Exception as error:  # noqa: BLE001  Why: whatever one write meets, the next ones must have their turn.
                if not isinstance(error, PondkeeperError):
                    _log.exception("the queue met a fault of the keeper")
                    error = PondkeeperError(private=repr(error))
                if self._waiting:
                    self._waiting.pop().settle(error)
                continue
            self._hand_over(child)
            if self._batch:
                await self._batch_over.wait()

    async def _gathered(self) -> None:
        """Wait for a write, and a moment for the crowd that there was just now."""
        loop, gathering = asyncio.get_running_loop(), self._gathering
        if len(self._waiting) < gathering.enough and loop.time() < gathering.until:
            self._wake.clear()
            timer = loop.call_at(gathering.until, self._wake.set)
            await self._wake.wait()
            timer.cancel()
        gathering.enough = 1
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()

    def _hand_over(self, child: Child) -> None:
        """Give the writer the next writes, as many as it may take at once."""
        loop, size_bytes = asyncio.get_running_loop(), 0
        frames: list[dict[str, Any]] = []
        while self._waiting and len(frames) < self._batch_size.writes:
            write = self._waiting.first()
            assert write is not None
            size_bytes += write.size_bytes
            if frames and (size_bytes > MAX_BATCH_BYTES or write.is_suspect):
                break
            self._waiting.pop()
            self._number += 1
            write.number, self._batch[self._number] = self._number, write
            frame = {
                "number": write.number,
                "statements": write.demand.statements,
                "wait_s": max(0.0, write.deadline - loop.time()),
                "timeout_s": write.demand.timeout_s,
                "asked_ns": write.asked_ns,
            }
            if write.demand.load is not None:
                frame["load"] = write.demand.load
            if (identity := write.demand.identity) is not None:
                frame["key"], frame["digest"] = identity.key, identity.digest
            frames.append(frame)
            if write.is_suspect:
                break
        if frames:
            self._batch_over.clear()
            self._batch_size.begin(len(frames), loop.time())
            child.send({"op": "apply", "writes": frames, "may_forget": self.may_forget})

    # What became of them

    def _on_frame(self, frame: dict[str, Any]) -> None:
        if frame["op"] == "begun":
            self._on_begun([write for number in frame["numbers"] if (write := self._batch.get(number))])
            return
        if frame["op"] == "committing":
            writes = [self._batch[number] for number in frame["numbers"]]
            self._on_begun([write for write in writes if not write.has_begun])
            for write in writes:
                write.is_committing = True
            return
        answered = [(self._batch.pop(answer["number"]), answer) for answer in frame["answers"]]
        for write, answer in reversed(answered):
            if not (answer["kind"] == "unknown" and self._asks_again(write)):
                self._take_answer(write, answer)
        if any(answer["kind"] == "unknown" for _, answer in answered):
            self.desk.kill()  # Why: it is about to end anyway; the next batch is for its successor.
        elif not self._batch:
            self._learn()
            self._end_batch()

    def _learn(self) -> None:
        now, size = asyncio.get_running_loop().time(), self._batch_size
        took_s = size.end(now)
        self._gathering.learn(size.count, len(self._waiting), most=size.writes, took_s=took_s, now=now)

    def _on_begun(self, writes: list[Write]) -> None:
        now = asyncio.get_running_loop().time()
        for write in writes:
            if not write.has_had_a_turn:
                self.waits.record(write.age_s)
            write.begin(now + write.demand.timeout_s)
            self._limit_running(write.deadline)

    def _take_answer(self, write: Write, answer: dict[str, Any]) -> None:
        if answer["kind"] != "applied":
            cause = PondkeeperError.from_wire(answer["error"])
            write.settle(self._verdict(write, answer["kind"], cause))
        elif not write.outcome.done():
            write.outcome.set_result({name: value for name, value in answer.items() if name not in ("number", "kind")})

    def _asks_again(self, write: Write) -> bool:
        """Let the successor look up the key of a write in mid-commit: it answers, or applies it. Once only."""
        if write.demand.identity is None or write.may_be_applied or write.reason is not None:
            return False
        write.may_be_applied = True
        self._put_back(write)
        return True

    def _put_back(self, write: Write) -> None:
        write.lose_turn(asyncio.get_running_loop().time())
        self._limit_waiting(write)
        self._waiting.put_back(write)

    def _end_batch(self) -> None:
        self._batch.clear()
        self.desk.waiting_for = None
        self._batch_over.set()

    def _on_overfull(self) -> None:
        """The writer is killed for its memory: a write that ran alone is why; of several each goes on alone."""
        guilty = [write for write in self._batch.values() if write.has_begun and not write.is_committing]
        if len(guilty) == 1 and guilty[0].reason is None:
            guilty[0].reason = OutOfMemory("The write went over the hard memory ceiling of the writer.")

    def _on_death(self, gone: ChildGone) -> None:
        """Those that were committing are unknown; the others go on with the successor, in their order."""
        left = list(self._batch.values())
        was_killed_for = any(write.reason is not None for write in left)
        for write in reversed(left):
            if write.is_committing and self._asks_again(write):
                continue
            if write.is_committing:
                write.settle(OutcomeUnknown("The writer died while it committed.", status=gone.status))
            elif write.reason is not None:
                write.settle(write.reason)
            elif gone.status == ENDED_ITSELF and not write.has_begun:
                self._put_back(write)  # Why: it came when the writer was ending already, for another's sake.
            elif write.is_suspect:
                message = "The writer that ran the statement died twice over it; nothing of it was applied."
                cause = self.desk.end_cause
                write.settle(cause.again() if cause is not None else WorkerDied(message, status=gone.status))
            else:
                # Why: if one of them has killed the writer, it must not take the others along again.
                write.is_suspect = not (gone.unread or was_killed_for)
                self._put_back(write)
        self._end_batch()

    def _verdict(self, write: Write, kind: str, cause: PondkeeperError) -> PondkeeperError:
        """What the client is told: why we stopped the write, or what it met, or for whom it waited in vain."""
        if kind == "unknown":
            return OutcomeUnknown(f"The commit failed in mid-air: {cause.message}", cause=cause.code)
        if write.reason is not None:
            return write.reason
        if not write.has_begun and isinstance(cause, DatabaseBusy | WriteTimedOut):
            return self._waited_in_vain(write, cause)
        return cause


def named(waiting_for: dict[str, Any]) -> str:
    """Whom the writer waits for, in words: the holder of the lease, a program that did not ask, or those before it."""
    if holder := waiting_for.get("holder"):
        reason = f", for: {holder['why']}" if holder.get("why") else ""
        return f"{holder['who']} (pid {holder['pid']}), which has had the lease since {holder.get('since', 'now')}{reason}"
    if (foreign := waiting_for.get("foreign")) is not None:
        return f"{foreign.get('holder_program', 'a program')} (pid {foreign.get('holder_pid', 'unknown')})"
    return f"{waiting_for.get('ahead', 0)} programs that were before it"

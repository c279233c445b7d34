"""The keeper's side of the writer: requests in order, each with a deadline, and a successor when the writer dies."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
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
from pondkeeper.workers.brake import Brake
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.writer.process"
OOM_SCORE_ADJ = 300
COMMIT_GRACE_S = 10.0
REPUBLISH_AFTER_S = 1.0
REPUBLISH_AT_MOST_S = 30.0
REPUBLISH_TIMEOUT_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WriterLimits:
    """What the writer may use, and how patient the queue is."""

    memory_limit_bytes: int
    threads: int
    temp_limit_bytes: int
    idle_close_s: float
    kill_after_s: float
    max_waiting: int
    pause_ratio: float


@dataclass
class Write:
    """One atomic list of statements in the queue; `outcome` is what became of it."""

    write_id: str
    statements: list[tuple[str, Any]]
    timeout_s: float
    deadline: float
    outcome: asyncio.Future[dict[str, Any]]
    number: int = 0
    is_committing: bool = False
    reason: PondkeeperError | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class WriteQueue:
    """Requests for one database, first come first served, applied by one writer process."""

    def __init__(
        self,
        template: Template,
        config: dict[str, Any],
        limits: WriterLimits,
        *,
        next_version: int,
        publish: Callable[[int], Awaitable[None]],
        on_publish_error: Callable[[PondkeeperError], None],
    ) -> None:
        self._template = template
        self._config = config
        self._log = _log.bind(database=Path(config["file"]).stem)
        self._limits = limits
        self._publish = publish
        self._on_publish_error = on_publish_error
        self._republish_after_s = REPUBLISH_AFTER_S
        self._republish_timer: asyncio.TimerHandle | None = None
        self._waiting: deque[Write] = deque()
        self._current: Write | None = None
        self._child: Child | None = None
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._publishing: asyncio.Task[None] | None = None
        self._brake = Brake()
        self._stopping = False
        self._number = 0
        self._starting = asyncio.Lock()
        self.next_version = next_version
        self.is_open = False
        self.waiting_for: dict[str, Any] | None = None
        self.publish_error: PondkeeperError | None = None
        self.closed_state: list[int] | None = None
        self._closed = asyncio.Event()
        self._closed.set()

    def start(self) -> None:
        self._task(self._serve())

    @property
    def depth(self) -> int:
        """How many requests wait or run."""
        return len(self._waiting) + (self._current is not None)

    @property
    def writer_pid(self) -> int | None:
        return self._child.pid if self._child else None

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
        if write is self._current:
            write.reason = write.reason or reason
            if self._child is not None:
                self._child.interrupt(write.number)
                self._kill_later(write, self._limits.kill_after_s)
        elif write in self._waiting:
            self._waiting.remove(write)
            _settle(write, self._busy_or(reason))

    def _kill_later(self, write: Write, after_s: float) -> None:
        def kill() -> None:
            if write is not self._current or self._child is None:
                return
            if write.is_committing and after_s < COMMIT_GRACE_S:
                self._kill_later(write, COMMIT_GRACE_S)  # Why: a kill now would only make the outcome unknown.
                return
            self._child.kill()

        write.timers.append(asyncio.get_running_loop().call_later(after_s, kill))

    def _busy_or(self, reason: PondkeeperError) -> PondkeeperError:
        """For a write that never had its turn: who held the database meanwhile."""
        if self.waiting_for is None or not isinstance(reason, WriteTimedOut):
            return reason
        return DatabaseBusy(f"The write waited {reason.details['timeout_s']:g} s in vain.", **self.waiting_for)

    async def republish(self, timeout_s: float) -> None:
        """Ask the writer for a new version though it committed nothing: somebody else changed the file."""
        child = await self._started()
        child.send({"op": "publish", "timeout_s": timeout_s})

    async def give_back(self, timeout_s: float) -> None:
        """Let the writer publish what it has, close the file and give the lease back."""
        if self._child is not None and self.is_open:
            self._child.send({"op": "close"})
            await asyncio.wait_for(self._closed.wait(), timeout_s)

    async def stop(self, grace_s: float) -> None:
        """Refuse new writes, let the running ones end within the grace, close the file in order."""
        self._stopping = True
        deadline = time.monotonic() + grace_s
        while self.depth and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        while self._waiting:
            _settle(self._waiting.popleft(), KeeperStopping())
        try:
            await self.give_back(max(2.0, deadline - time.monotonic()))
        except TimeoutError:
            self._log.warning("the writer did not close in time; its commits are in the WAL")
        child, self._child = self._child, None
        for task in list(self._tasks):
            task.cancel()
        if child is not None:
            child.close()
            child.kill()
            await asyncio.shield(child.exited)

    # The loop

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            write = self._waiting.popleft()
            self._current = write
            try:
                await self._apply(write)
            except PondkeeperError as error:
                _settle(write, error)
            finally:
                self._current = None

    async def _apply(self, write: Write) -> None:
        child = await self._started()
        self._number += 1
        write.number = self._number
        timeout_s = max(0.0, write.deadline - asyncio.get_running_loop().time())
        message = {"op": "apply", "number": write.number, "statements": write.statements, "timeout_s": timeout_s}
        child.send(message)
        await asyncio.wait({write.outcome})

    async def _started(self) -> Child:
        async with self._starting:
            if self._child is None:
                if self._publishing is not None:  # Why: no writer may open the file while the copier reads a version.
                    await asyncio.wait({self._publishing})
                if self._brake.delay_s:
                    self._log.warning("the writer dies at birth", next_start_in_s=self._brake.delay_s)
                    await asyncio.sleep(self._brake.delay_s)
                self._child = await self._spawn()
                self._task(self._listen(self._child, time.monotonic()))
            return self._child

    async def _spawn(self) -> Child:
        limits = self._limits
        config = {
            **self._config,
            "memory_limit_bytes": limits.memory_limit_bytes,
            "threads": limits.threads,
            "temp_limit_bytes": limits.temp_limit_bytes,
            "idle_close_s": limits.idle_close_s,
            "pause_ratio": limits.pause_ratio,
            "next_version": self.next_version,
        }
        return await self._template.spawn(ChildSpec("writer", ENTRY, config, oom_score_adj=OOM_SCORE_ADJ))

    # What the writer says

    async def _listen(self, child: Child, started_at: float) -> None:
        was_useful = False
        try:
            while True:
                frame = await child.next_frame()
                assert isinstance(frame, dict)
                was_useful = was_useful or frame["op"] in ("applied", "refused", "closed")
                getattr(self, "_on_" + frame["op"])(frame)
        except ChildGone as gone:
            self._brake.record_death(started_at, was_useful=was_useful)
            self._on_gone(gone.status)

    def _on_ready(self, frame: dict[str, Any]) -> None:
        """The process is there; it opens the file when it has work."""

    def _on_waiting(self, frame: dict[str, Any]) -> None:
        self.waiting_for = {key: value for key, value in frame.items() if key != "op"}

    def _on_opened(self, frame: dict[str, Any]) -> None:
        self.is_open, self.waiting_for = True, None
        self._closed.clear()

    def _on_closed(self, frame: dict[str, Any]) -> None:
        self.is_open, self.waiting_for = False, None
        self.closed_state = frame["state"]
        self._closed.set()

    def _on_committing(self, frame: dict[str, Any]) -> None:
        self._running(frame).is_committing = True

    def _on_applied(self, frame: dict[str, Any]) -> None:
        self.next_version = max(self.next_version, frame["version"])
        write = self._running(frame)
        if not write.outcome.done():
            write.outcome.set_result({"version": frame["version"], "rows_changed": frame["rows_changed"]})

    def _on_refused(self, frame: dict[str, Any]) -> None:
        self.waiting_for = None
        write = self._running(frame)
        _settle(write, write.reason or PondkeeperError.from_wire(frame["error"]))

    def _on_unknown(self, frame: dict[str, Any]) -> None:
        cause = PondkeeperError.from_wire(frame["error"])
        message = f"The commit failed in mid-air: {cause.message}"
        _settle(self._running(frame), OutcomeUnknown(message, cause=cause.code))

    def _running(self, frame: dict[str, Any]) -> Write:
        """The write that the frame is about: there is only one at a time."""
        write = self._current
        if write is None or write.number != frame["number"]:
            raise RuntimeError(f"the writer speaks of request {frame['number']}, which does not run")
        return write

    def _on_checkpointed(self, frame: dict[str, Any]) -> None:
        self.next_version = max(self.next_version, frame["version"] + 1)
        self._publishing = self._task(self._publish_then_resume(frame["version"], self._child))

    def _on_publish_failed(self, frame: dict[str, Any]) -> None:
        self._note_publish_error(PondkeeperError.from_wire(frame["error"]))

    async def _publish_then_resume(self, version: int, child: Child | None) -> None:
        try:
            await self._publish(version)
            self.publish_error, self._republish_after_s = None, REPUBLISH_AFTER_S
        except PondkeeperError as error:
            self._note_publish_error(error, version=version)
            self._republish_later()
        finally:
            if child is not None:
                child.send({"op": "resume"})

    def _note_publish_error(self, error: PondkeeperError, **where: Any) -> None:
        """Keep it for the status; the log gets it once, however often the same thing fails again."""
        before, self.publish_error = self.publish_error, error
        is_news = before is None or (before.code, before.message) != (error.code, error.message)
        log = self._log.error if is_news else self._log.debug
        log("nothing can be published", error=error.to_wire(with_private=True), **where)
        self._on_publish_error(error)

    def _republish_later(self) -> None:
        """Try again by and by: one timer, whatever fails meanwhile, and ever more patient."""
        if self._republish_timer is not None:
            self._republish_timer.cancel()

        def again() -> None:
            if self._child is not None:
                self._child.send({"op": "publish", "timeout_s": REPUBLISH_TIMEOUT_S})

        self._republish_timer = asyncio.get_running_loop().call_later(self._republish_after_s, again)
        self._republish_after_s = min(2 * self._republish_after_s, REPUBLISH_AT_MOST_S)

    def _on_gone(self, status: int) -> None:
        self._child = None
        self._on_closed({"state": None})
        if not self._stopping:
            self._log.warning("the writer died", status=status)
        write = self._current
        if write is None or write.outcome.done():
            return
        if write.is_committing:
            _settle(write, OutcomeUnknown("The writer died while it committed.", status=status))
        else:
            message = "The writer that ran the statement died; nothing of it was applied."
            _settle(write, write.reason or WorkerDied(message, status=status))

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _settle(write: Write, error: PondkeeperError) -> None:
    if not write.outcome.done():
        write.outcome.set_exception(error)

"""The keeper's side of the writer process: one child, a successor when it dies, and what it says of the file."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from pondkeeper.errors import DiskFull, PondkeeperError
from pondkeeper.files.durable import empty_folder
from pondkeeper.files.locks import holders_of
from pondkeeper.workers.brake import Brake
from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import ChildSpec, Template
from pondkeeper.writer.lease import KEEPER, KEEPERS_REASON
from pondkeeper.writer.timings import Timings

ENTRY = "pondkeeper.writer.process"
OOM_SCORE_ADJ = 300
REPUBLISH_AFTER_S = 1.0
REPUBLISH_AT_MOST_S = 30.0
REPUBLISH_TIMEOUT_S = 5.0
ABOUT_REQUESTS = frozenset({"begun", "committing", "answers"})
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

    @property
    def ceiling(self) -> Ceiling:
        """The walls above DuckDB's own limit, which scalar functions ignore."""
        return Ceiling(self.memory_limit_bytes)


async def _nothing_to_prepare() -> None:
    """Where nobody looks after the file."""


@dataclass(frozen=True)
class Publishing:
    """How the desk reaches whoever makes and shows snapshots.

    `publish(version)` has the copier take a checkpoint; `reserve(version)` remembers on disk that versions up to this
    one may be promised to clients; `failed(error)` is told whenever nothing can be published. `prepare()` is awaited
    before a writer is started, and raises why none may be.
    """

    publish: Callable[[int], Awaitable[None]]
    reserve: Callable[[int], Awaitable[None]]
    failed: Callable[[PondkeeperError], None]
    prepare: Callable[[], Awaitable[None]] = _nothing_to_prepare


class WriterDesk:
    """The writer of one database, whichever process it is right now.

    Frames about requests go to `on_request`, the death of the process to `on_death`, before anything is reset; `on_overfull`
    is told before one is killed for the memory that it takes.
    """

    def __init__(
        self,
        template: Template,
        config: dict[str, Any],
        limits: WriterLimits,
        *,
        next_version: int,
        publishing: Publishing,
        fence: Fence,
        known_state: list[int] | None = None,
    ) -> None:
        self._template = template
        self._config = config
        self._limits = limits
        self._fence = fence
        self._publishing = publishing
        self._log = _log.bind(database=Path(config["file"]).stem)
        self._child: Child | None = None
        self._starting = asyncio.Lock()
        self._brake = Brake()
        self._copying: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._republish_after_s = REPUBLISH_AFTER_S
        self._republish_timer: asyncio.TimerHandle | None = None
        self._tasks = SideTasks()
        self._closed = asyncio.Event()
        self._closed.set()
        self._stopping = False
        self._wanted = 0
        self.next_version = next_version
        self.is_open = False
        self.opened_at = 0.0
        self.holds = Timings()
        self.waiting_for: dict[str, Any] | None = None
        self.publish_error: PondkeeperError | None = None
        self.end_cause: PondkeeperError | None = None
        self.closed_state = known_state
        self.others_changed_it = True
        self.others_turns = 0  # how often somebody else was seen to have the file, or to have had it
        self.is_behind_others = False  # whether what they did is not published yet
        self.on_request: Callable[[dict[str, Any]], None] = lambda frame: None
        self.on_overfull: Callable[[], None] = lambda: None
        self.on_death: Callable[[ChildGone], None] = lambda gone: None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def is_copying(self) -> bool:
        """Whether the copier reads the file right now."""
        return self._copying is not None and not self._copying.done()

    def holder(self) -> dict[str, Any] | None:
        """Our writer as the holder of the lease: who, why, since, pid; None while it has not the file."""
        if not self.is_open:
            return None
        since = datetime.fromtimestamp(self.opened_at, UTC).isoformat(timespec="milliseconds")
        return {"who": KEEPER, "why": KEEPERS_REASON, "pid": self.pid, "since": since}

    # What the queue does with it

    async def started(self) -> Child:
        """The writer process, forked if there is none; waits while the copier reads what a dead one left."""
        async with self._starting:
            if self._child is None:
                if self._copying is not None:  # Why: no writer may open the file while the copier reads a version.
                    await asyncio.wait({self._copying})
                if self._brake.delay_s:
                    self._log.warning("the writer dies at birth", next_start_in_s=self._brake.delay_s)
                    await asyncio.sleep(self._brake.delay_s)
                if self._sweeping is not None:
                    await asyncio.wait({self._sweeping})
                await self._prepare()
                await self._publishing.reserve(self.next_version + 1)
                self._child = await self._spawn()
                self._tasks.start(self._listen(self._child, time.monotonic()))
                self._tasks.start(self._limits.ceiling.watch(self._child, self._on_overfull))
            return self._child

    async def _prepare(self) -> None:
        try:
            await self._publishing.prepare()
        except PondkeeperError as error:
            self._note_publish_error(error)
            raise

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
            "known_state": self.closed_state,
        }
        spec = ChildSpec("writer", ENTRY, config, limits.ceiling.rlimits, OOM_SCORE_ADJ, self._fence)
        return await self._template.spawn(spec)

    def interrupt(self, number: int) -> None:
        """Ask the writer to stop request `number`; it may be deaf."""
        if self._child is not None:
            self._child.interrupt(number)

    def kill(self) -> None:
        """End the process now; `on_death` follows."""
        if self._child is not None:
            self._child.kill()

    async def republish(self, timeout_s: float) -> None:
        """Ask the writer for a new version though it committed nothing: somebody else changed the file."""
        child = await self.started()
        child.send({"op": "publish", "timeout_s": timeout_s})

    def want(self, version: int) -> None:
        """Somebody waits for this version: a stream of commits is no reason to publish it later."""
        if self._child is not None and version > self._wanted:
            self._wanted = version
            self._child.send({"op": "wanted", "version": version})

    async def give_back(self, timeout_s: float) -> None:
        """Let the writer publish what it has, close the file and give the lease back. Raises TimeoutError."""
        if self._child is not None and self.is_open:
            self._child.send({"op": "close"})
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()

    async def is_closed_within(self, timeout_s: float) -> bool:
        """Whether our writer does not have the file, or gives it back in that time by itself."""
        if self.is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._closed.wait()
        return not self.is_open

    async def stop(self, timeout_s: float) -> None:
        """Close the file in order, if that takes no longer than `timeout_s`, and end the process."""
        self._stopping = True
        try:
            await self.give_back(timeout_s)
        except TimeoutError:
            self._log.warning("the writer did not close in time; its commits are in the WAL")
        if self._republish_timer is not None:
            self._republish_timer.cancel()
        if (child := self._child) is not None:
            child.close()
            child.kill()
            await asyncio.shield(child.exited)
        self._tasks.cancel()

    # What the writer says

    async def _listen(self, child: Child, started_at: float) -> None:
        was_useful = False
        while True:
            try:
                frame = await child.next_frame()
            except ChildGone as gone:
                self._brake.record_death(started_at, was_useful=was_useful)
                self._on_gone(gone)
                return
            try:
                was_useful = self._take(frame) or was_useful
            except Exception:  # noqa: BLE001  Why: who stops listening lets every write hang; who talks nonsense is killed.
                self._log.exception("the writer said what no writer says")
                child.kill()

    def _take(self, frame: dict[str, Any] | bytes) -> bool:
        """Act on a frame; whether it shows that the process is of use."""
        if not isinstance(frame, dict):
            raise TypeError("the writer sent data")
        if frame["op"] in ABOUT_REQUESTS:
            self._note_request(frame)
        else:
            getattr(self, "_on_" + frame["op"])(frame)
        return frame["op"] in ("answers", "closed")

    def _note_request(self, frame: dict[str, Any]) -> None:
        answers = frame.get("answers", ())
        self.next_version = max([self.next_version, *(answer.get("version", 0) for answer in answers)])
        self.on_request(frame)

    def _on_ready(self, frame: dict[str, Any]) -> None:
        """The process is there; it opens the file when it has work."""

    def _on_waiting(self, frame: dict[str, Any]) -> None:
        self.waiting_for = {key: value for key, value in frame.items() if key != "op"}
        self.others_turns += 1
        if frame.get("foreign") == {}:  # Why: within its fence the writer sees that somebody has the file, and not who.
            self.waiting_for["foreign"] = self._stranger()

    def _stranger(self) -> dict[str, Any]:
        """Who has the file open in DuckDB, by the kernel's table of locks; {} when it does not say."""
        for holder in holders_of(Path(self._config["file"])):
            if holder.kind == "posix" and holder.pid != self.pid:
                return {"holder_pid": holder.pid, "holder_program": holder.program}
        return {}

    def _on_opened(self, frame: dict[str, Any]) -> None:
        self.is_open, self.waiting_for = True, None
        self.opened_at = time.time()
        self.others_changed_it = self.others_changed_it or frame["changed"]
        if frame["changed"]:
            self.others_turns, self.is_behind_others = self.others_turns + 1, True
        self._config["may_make"] = False  # Why: a file that is gone later was lost; no successor makes an empty one.
        self._closed.clear()

    def _on_closed(self, frame: dict[str, Any]) -> None:
        if self.is_open:
            self.holds.record(max(0.0, time.time() - self.opened_at))
        self.is_open, self.waiting_for = False, None
        self.closed_state = frame["state"]
        self._closed.set()

    def _on_overfull(self) -> None:
        self.on_overfull()

    def _on_gone(self, gone: ChildGone) -> None:
        self._child = None
        if not self._stopping:
            self._log.warning("the writer died", status=gone.status)
        # Why: DuckDB leaves the temp files of a killed process behind.
        self._sweeping = self._tasks.start(asyncio.to_thread(empty_folder, Path(self._config["temp_directory"])))
        self.on_death(gone)
        self.end_cause = None
        self._on_closed({"state": None})

    # Publishing

    def _on_checkpointed(self, frame: dict[str, Any]) -> None:
        self.next_version = max(self.next_version, frame["version"] + 1)
        self._copying = self._tasks.start(self._publish_then_resume(frame["version"], self._child))

    def _on_publish_failed(self, frame: dict[str, Any]) -> None:
        error = PondkeeperError.from_wire(frame["error"])
        self._note_publish_error(error)
        if isinstance(error, DiskFull):  # Why: the process ends after a checkpoint that failed.
            self.end_cause = error

    def _on_ending(self, frame: dict[str, Any]) -> None:
        self.end_cause = PondkeeperError.from_wire(frame["error"])

    async def _publish_then_resume(self, version: int, child: Child | None) -> None:
        try:
            await self._publishing.publish(version)
            self.is_behind_others = False
            self.publish_error, self._republish_after_s = None, REPUBLISH_AFTER_S
        except PondkeeperError as error:
            await self._publishing.reserve(version + 2)  # Why: the next one is not published, and a further one promised.
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
        self._publishing.failed(error)

    def _republish_later(self) -> None:
        """Try again by and by: one timer, whatever fails meanwhile, and ever more patient."""
        if self._republish_timer is not None:
            self._republish_timer.cancel()

        def again() -> None:
            if self._child is not None:
                self._child.send({"op": "publish", "timeout_s": REPUBLISH_TIMEOUT_S})

        self._republish_timer = asyncio.get_running_loop().call_later(self._republish_after_s, again)
        self._republish_after_s = min(2 * self._republish_after_s, REPUBLISH_AT_MOST_S)

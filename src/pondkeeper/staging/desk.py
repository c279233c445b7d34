"""The keeper's side of the stagers: a few processes, each with one body at a time, killed when nobody waits for it."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pondkeeper.errors import OutOfMemory, PondkeeperError, WorkerDied
from pondkeeper.files.durable import make_folder
from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.staging.process"
OOM_SCORE_ADJ = 600
IDLE_END_S = 30.0
SPENT_RSS_BYTES = 512 * 1024 * 1024
_ATTEMPTS = 2
_log = structlog.get_logger(__name__)


class SnapshotGone(Exception):
    """The snapshot was taken back before the stager could look into it: ask again with the newest."""


@dataclass(frozen=True)
class StagerLimits:
    """How many stagers, and what each may use."""

    count: int
    memory_limit_bytes: int
    threads: int
    temp_limit_bytes: int

    @property
    def ceiling(self) -> Ceiling:
        """The walls above DuckDB's own limit, of which Arrow and the text of rows know nothing."""
        return Ceiling(self.memory_limit_bytes)


@dataclass(eq=False)
class _Stager:
    child: Child
    temp: Path
    fence: Fence
    end_timer: asyncio.TimerHandle | None = None
    is_too_big: bool = False

    def was_too_big(self) -> None:
        """It is about to be killed for the memory that it took."""
        self.is_too_big = True


class StagingDesk:
    """Stages bodies, and looks at the shapes of tables, by asking a stager.

    Each stager is born behind the fence of one database, and works for no other.
    """

    def __init__(self, template: Template, limits: StagerLimits, temp: Path) -> None:
        self._template = template
        self._limits = limits
        self._temp = temp
        self._slots = asyncio.Semaphore(limits.count)
        self._idle: list[_Stager] = []
        self._all: set[_Stager] = set()
        self._numbers = itertools.count(1)
        self._tasks = SideTasks()
        self._stopping = False

    @property
    def pids(self) -> list[int]:
        """The processes that there are now."""
        return [stager.child.pid for stager in self._all]

    async def stage(self, job: dict[str, Any], fence: Fence) -> dict[str, Any]:
        """What was staged (engine/intake/staging.Staged). Raises PondkeeperError; whoever gives up kills the stager."""
        answer = await self._ask({"op": "stage", "job": job}, fence, attempts=1)
        staged: dict[str, Any] = answer["staged"]
        return staged

    async def shape(self, snapshot: str, schema: str, table: str, fence: Fence) -> dict[str, Any] | None:
        """The shape of a table in a snapshot; None when it has none. Raises SnapshotGone or PondkeeperError."""
        answer = await self._ask({"op": "shape", "snapshot": snapshot, "schema": schema, "table": table}, fence, _ATTEMPTS)
        if answer["op"] == "gone":
            raise SnapshotGone
        shape: dict[str, Any] | None = answer["shape"]
        return shape

    async def stop(self) -> None:
        """End all of them."""
        self._stopping = True
        for stager in list(self._all):
            self._end(stager)
            await asyncio.shield(stager.child.exited)

    async def _ask(self, message: dict[str, Any], fence: Fence, attempts: int) -> dict[str, Any]:
        async with self._slots:
            while True:
                attempts -= 1
                stager = await self._taken(fence)
                try:
                    return await self._asked(stager, message)
                except ChildGone as gone:
                    if stager.is_too_big:
                        raise OutOfMemory("Staging the body went over the hard memory ceiling of its process.") from gone
                    # Why again: one that died idle has not read the message, which says nothing about it.
                    if attempts <= 0 and not gone.unread:
                        raise WorkerDied("The process that staged the body died over it.", status=gone.status) from gone

    async def _asked(self, stager: _Stager, message: dict[str, Any]) -> dict[str, Any]:
        is_fit = False
        try:
            stager.child.send(message)
            answer = await stager.child.next_frame()
            if not isinstance(answer, dict):
                raise WorkerDied("The stager sent what no stager sends, and was ended.")
            is_fit = not answer.get("is_spent") and stager.child.rss_bytes() < SPENT_RSS_BYTES
        finally:
            if is_fit and not self._stopping:
                self._put_aside(stager)
            else:
                self._end(stager)
        if answer["op"] == "error":
            raise PondkeeperError.from_wire(answer["error"])
        return answer

    # The processes

    async def _taken(self, fence: Fence) -> _Stager:
        """An idle stager behind that fence, else a new one; where there are as many as may be, in the place of an idle one."""
        while (stager := next((each for each in reversed(self._idle) if each.fence == fence), None)) is not None:
            self._idle.remove(stager)
            if stager.end_timer is not None:
                stager.end_timer.cancel()
            if not stager.child.exited.done():
                return stager
            self._end(stager)
        if self._idle and len(self._all) >= self._limits.count:
            self._end(self._idle.pop(0))
        return await self._made(fence)

    async def _made(self, fence: Fence) -> _Stager:
        limits = self._limits
        temp = self._temp / f"stager-{next(self._numbers)}"
        await asyncio.to_thread(make_folder, temp)
        config = {
            "memory_limit_bytes": limits.memory_limit_bytes,
            "threads": limits.threads,
            "temp_directory": str(temp),
            "temp_limit_bytes": limits.temp_limit_bytes,
        }
        spec = ChildSpec("stager", ENTRY, config, limits.ceiling.rlimits, OOM_SCORE_ADJ, fence.with_own(temp))
        child = await self._template.spawn(spec)
        stager = _Stager(child, temp, fence)
        self._all.add(stager)
        self._tasks.start(limits.ceiling.watch(child, stager.was_too_big))
        try:
            await child.next_frame()  # ready
        except BaseException:  # Why: whoever asked for it does not get it, and nobody else would end it.
            self._end(stager)
            raise
        return stager

    def _put_aside(self, stager: _Stager) -> None:
        def end() -> None:
            self._idle.remove(stager)
            self._end(stager)

        stager.end_timer = asyncio.get_running_loop().call_later(IDLE_END_S, end)
        self._idle.append(stager)

    def _end(self, stager: _Stager) -> None:
        """Kill it; what it left in its temp folder goes when it has ended."""
        if stager.end_timer is not None:
            stager.end_timer.cancel()
        self._all.discard(stager)
        stager.child.close()
        stager.child.kill()
        stager.child.exited.add_done_callback(lambda _: self._sweep(stager.temp))

    def _sweep(self, temp: Path) -> None:
        """Why a thread: what was spilled may be many gigabytes, which take their time to go."""
        self._tasks.start(asyncio.to_thread(shutil.rmtree, temp, ignore_errors=True))

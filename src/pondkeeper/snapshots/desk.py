"""The keeper's side of the copiers: one child per database, one request at a time, a successor when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.child import Child
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.patience import next_message
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.snapshots.process"
OOM_SCORE_ADJ = 300
SILENCE_S = 20.0
IDLE_END_S = 600.0


class CopierDesk:
    """Makes snapshots by asking a copier process: one per database, so that a large one keeps no other waiting."""

    def __init__(self, template: Template, fence_of: Callable[[DatabasePaths], Fence]) -> None:
        self._template = template
        self._fence_of = fence_of
        self._copiers: dict[Path, _Copier] = {}

    async def publish(self, paths: DatabasePaths, version: int, keep: int, *, compare: bool) -> dict[str, Any]:
        """Make the snapshot `version` of what the file holds now; the copier's report. Raises PondkeeperError.

        `compare`: somebody but our writer may have changed the file, so nothing is taken for granted.
        """
        if paths.snapshots not in self._copiers:
            self._copiers[paths.snapshots] = _Copier(self._template, self._fence_of(paths))
        return await self._copiers[paths.snapshots].ask(
            {
                "op": "publish",
                "version": version,
                "source": str(paths.file),
                "snapshots": str(paths.snapshots),
                "links": [str(paths.published), str(paths.published_by_name)],
                "keep": keep,
                "compare": compare,
            }
        )

    async def settle(self, paths: DatabasePaths) -> None:
        """Return when the newest snapshot is there after a power cut too, with its name and manifest."""
        if (copier := self._copiers.get(paths.snapshots)) is not None:
            await copier.ask({"op": "settle", "snapshots": str(paths.snapshots)})

    async def stop(self) -> None:
        """End the copiers; a half-made snapshot is removed by the next one."""
        for copier in self._copiers.values():
            await copier.stop()
        self._copiers.clear()


class _Copier:
    """One copier process: started when it has work, ended when it has had none for long."""

    def __init__(self, template: Template, fence: Fence) -> None:
        self._template = template
        self._fence = fence
        self._child: Child | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Its answer to a message. Raises what it answers as an error, and WorkerDied."""
        async with self._lock:
            self._stay()
            child = await self._started()
            child.send(message)
            try:
                answer = await next_message(child, "The copier", SILENCE_S)
            except BaseException:  # Why: an answer that comes after all would be taken for that to the next request.
                self._child = None
                child.kill()
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_END_S, self._end)
        if answer["op"] == "error":
            raise PondkeeperError.from_wire({key: value for key, value in answer.items() if key != "op"})
        return answer

    async def stop(self) -> None:
        self._stay()
        if (child := self._child) is not None:
            self._end()
            await asyncio.shield(child.exited)

    async def _started(self) -> Child:
        if self._child is None or self._child.exited.done():
            spec = ChildSpec("copier", ENTRY, {}, oom_score_adj=OOM_SCORE_ADJ, fence=self._fence)
            self._child = await self._template.spawn(spec)
        return self._child

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self) -> None:
        """Why by a kill: what it prepared is private, and removed by its successor."""
        if self._child is not None:
            self._child.kill()
            self._child = None

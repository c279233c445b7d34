"""The keeper's side of the copier: one child, one request at a time, a successor when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pondkeeper.errors import PondkeeperError, WorkerDied
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.snapshots.process"
OOM_SCORE_ADJ = 300
SILENCE_S = 20.0


class CopierDesk:
    """Makes snapshots by asking the copier process."""

    def __init__(self, template: Template, fence_of: Callable[[DatabasePaths], Fence]) -> None:
        self._template = template
        self._fence_of = fence_of
        self._child: Child | None = None
        self._lock = asyncio.Lock()

    async def publish(self, paths: DatabasePaths, version: int, keep: int, *, compare: bool) -> dict[str, Any]:
        """Make the snapshot `version` of what the file holds now; the copier's report. Raises PondkeeperError.

        `compare`: somebody but our writer may have changed the file, so nothing is taken for granted.
        """
        return await self._ask(
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

    async def stop(self) -> None:
        """End the copier; a half-made snapshot is removed by the next one."""
        if self._child is not None:
            self._child.kill()
            await asyncio.shield(self._child.exited)
            self._child = None

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:
            child = await self._started()
            child.send(message)
            try:
                answer = await _answer(child)
            except BaseException:  # Why: an answer that comes after all would be taken for that to the next request.
                self._child = None
                child.kill()
                raise
        if answer["op"] == "error":
            raise PondkeeperError.from_wire({key: value for key, value in answer.items() if key != "op"})
        return answer

    async def _started(self) -> Child:
        if self._child is None or self._child.exited.done():
            wide = Fence(write=("/",), may_touch=True)  # Why: one copier for databases anywhere; it runs no SQL
            spec = ChildSpec("copier", ENTRY, {}, oom_score_adj=OOM_SCORE_ADJ, fence=wide)
            self._child = await self._template.spawn(spec)
        return self._child


async def _answer(child: Child) -> dict[str, Any]:
    """The copier's answer. One that shows no sign of work is taken for hung, since a copy may rightly take an hour."""
    done = child.work_done()
    while True:
        try:
            answer = await asyncio.wait_for(child.next_frame(), SILENCE_S)
        except ChildGone as gone:
            raise WorkerDied("The copier died.", status=gone.status) from gone
        except TimeoutError:
            before, done = done, child.work_done()
            if done == before:
                raise WorkerDied(f"The copier did nothing for {SILENCE_S:g} s and was ended.") from None
            continue
        if not isinstance(answer, dict):
            raise WorkerDied("The copier sent what no copier sends, and was ended.")
        return answer

"""A run that goes on, seen from the keeper: one that it started, or one that it found when it came."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import RunPaths
from pondkeeper.jobs.starting import Started
from pondkeeper.jobs.status import FINAL, Phase, RunStatus, status_in

LOOK_S: Final = 0.25
BETWEEN_TOLD_S: Final = 1.0
OnChange = Callable[[RunStatus], None]


class Follower:
    """Waits for the end of one attempt, and tells of its progress now and then. `process`: the supervisor, if it is our child."""

    def __init__(self, paths: RunPaths, process: Started | None, on_change: OnChange) -> None:
        self._paths = paths
        self._process = process
        self._on_change = on_change
        self._told: tuple[Phase, float | None] | None = None
        self._told_at = 0.0

    async def ended(self) -> None:
        """Return when the supervisor has ended, whatever it has said."""
        if self._process is None:
            while await asyncio.to_thread(is_flocked, self._paths.lock):
                await self._look()
                await asyncio.sleep(LOOK_S)
            return
        await self._ended_child(self._process)

    async def _ended_child(self, process: Started) -> None:
        loop = asyncio.get_running_loop()
        has_ended = asyncio.Event()
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:  # Why: it has ended, and was no child of ours to wait for.
            return
        loop.add_reader(descriptor, has_ended.set)
        try:
            while not has_ended.is_set():
                await self._look()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await has_ended.wait()
                except TimeoutError:
                    continue
            process.poll()
        except asyncio.CancelledError:
            process.returncode = 0  # Why: it outlives us on purpose, which subprocess would warn of.
            raise
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _look(self) -> None:
        status = await asyncio.to_thread(status_in, self._paths.status_json)
        if status is None or status.phase in FINAL or (status.phase, status.updated_at) == self._told:
            return
        now = time.monotonic()
        if (self._told is None or status.phase is self._told[0]) and now - self._told_at < BETWEEN_TOLD_S:
            return
        self._told, self._told_at = (status.phase, status.updated_at), now
        self._on_change(status)

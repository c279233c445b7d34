"""Tasks beside the requests: watchers, refills, loops. One that dies of a fault stops the keeper, loudly."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


class SideTasks:
    """Keeps hold of tasks that nobody awaits, and of what becomes of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it beside everything else, until it ends or `cancel`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def cancel(self) -> None:
        """End them all."""
        for task in list(self._tasks):
            task.cancel()

    async def end(self) -> None:
        """End them all, and wait until the last has ended: none of them makes anything any more."""
        self.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # Why: without its watcher or its loop the keeper looks alive and does not work; a supervisor starts it anew.
        _log.critical("a side task of the keeper died; the keeper stops", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)

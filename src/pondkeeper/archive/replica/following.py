"""The keeper's side of a follower: a child that is kept alive, and what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.brake import Brake
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY: Final = "pondkeeper.archive.replica.follower"
OOM_SCORE_ADJ: Final = 300
RETRY_S: Final = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Source:
    """What is followed: a keeper's URL with its key, or an archive with its."""

    address: str
    url: str = ""
    key: str | None = None
    ca_file: str | None = None
    archive: str = ""
    archive_key_file: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    readable: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """For the follower's configuration."""
        return {
            "url": self.url,
            "key": self.key,
            "ca_file": self.ca_file,
            "archive": self.archive,
            "archive_key_file": self.archive_key_file,
            "environment": dict(self.environment),
        }


class Following:
    """Keeps a follower of one database at work. `on_message` hears what it says, `on_problem` what keeps it from it."""

    def __init__(
        self,
        paths: DatabasePaths,
        template: Template,
        source: Source,
        config: dict[str, Any],
        on_message: Callable[[dict[str, Any]], None],
        on_problem: Callable[[PondkeeperError], None],
    ) -> None:
        self.source = source
        self._paths = paths
        self._template = template
        self._config = {"file": str(paths.file), "home": str(paths.home), **config, **source.to_wire()}
        self._on_message = on_message
        self._on_problem = on_problem
        self._brake = Brake()
        self._tasks = SideTasks()
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and not self._child.exited.done() else None

    def start(self) -> None:
        """Follow from now on."""
        self._tasks.start(self._keep())

    async def stop(self) -> None:
        """Follow no more; what was half-made is gone on with when it is started again."""
        await self._tasks.end()
        if (child := self._child) is not None:
            child.kill()
            await asyncio.shield(child.exited)
            self._child = None

    async def _keep(self) -> None:
        while True:
            began_at = time.monotonic()
            try:
                await self._hear()
            except PondkeeperError as error:
                self._on_problem(error)
            except ChildGone as gone:
                _log.warning("the follower ended", database=self._paths.name, status=gone.status)
            # Why useful after a while: one that dies after an hour is not one that dies at birth.
            self._brake.record_death(began_at, was_useful=time.monotonic() - began_at > RETRY_S)
            await asyncio.sleep(max(self._brake.delay_s, RETRY_S / 10))

    async def _hear(self) -> None:
        """Until the follower ends. Raises ChildGone, TemplateFailed."""
        await asyncio.to_thread(make_folder, self._paths.snapshots)
        self._child = child = await self._template.spawn(
            ChildSpec("follower", ENTRY, {}, oom_score_adj=OOM_SCORE_ADJ, fence=self._fence())
        )
        try:
            # Why not by the template: it holds a key, and every reader is forked from there.
            child.send(self._config)
            while True:
                frame = await child.next_frame()
                if isinstance(frame, dict):
                    self._on_message(frame)
        finally:
            child.kill()

    def _fence(self) -> Fence:
        own = (str(self._paths.folder),)
        read = (*self.source.readable, *(() if not self.source.ca_file else (self.source.ca_file,)))
        is_folder = bool(self.source.archive) and Path(self.source.archive).is_absolute()
        if is_folder:
            # Why to be written: opening an archive says nothing, but its lock is a file of it.
            read = (*read, self.source.archive)
        return Fence(read, own, may_touch=True, may_connect=not is_folder)

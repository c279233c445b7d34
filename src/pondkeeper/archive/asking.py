"""The keeper's side of one process that has the archive open: started when there is work, a successor when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pondkeeper.archive.place import Place, place_to_wire
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.durable import make_folder, sync_folder
from pondkeeper.workers.child import Child
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.patience import next_message
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.archive.process"
WHO = "The process that works on the archive"
OOM_SCORE_ADJ = 500
SILENCE_S = 300.0
IDLE_END_S = 60.0
NICE = 10

OnProgress = Callable[[int, int], None]


class ArchiveProcess:
    """One request at a time. `read` and `write` are folders that it needs beside the archive itself."""

    def __init__(
        self, template: Template, name: str, place: Place, read: tuple[Path, ...], write: tuple[Path, ...] = ()
    ) -> None:
        self._template = template
        self._name = name
        self._place = place
        self._read = read
        self._write = write
        self._child: Child | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    async def ask(self, message: dict[str, Any], on_progress: OnProgress = lambda done, of: None) -> dict[str, Any]:
        """Its answer to a message. Raises what it answers as an error, and WorkerDied. Whoever gives up ends it."""
        async with self._lock:
            self._stay()
            try:
                child = await self._started()
                answer = await _answer(child, message, on_progress)
            except BaseException:  # Why: an answer that comes after all would be taken for that to the next request.
                self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_END_S, self._end)
        return _taken(answer)

    async def stop(self) -> None:
        """End it; what it has half written is nobody's."""
        self._stay()
        if (child := self._child) is not None:
            self._end()
            await asyncio.shield(child.exited)

    async def _started(self) -> Child:
        if self._child is None or self._child.exited.done():
            writable = [*self._write, *map(Path, self._place.writable())]
            await asyncio.to_thread(_make_folders, writable)  # Why: it is let into the folders that there are at its birth
            fence = Fence(
                (*map(str, self._read), *self._place.readable()),
                tuple(map(str, writable)),
                may_connect=self._place.is_bucket,
            )
            spec = ChildSpec(self._name, ENTRY, {}, oom_score_adj=OOM_SCORE_ADJ, fence=fence)
            self._child = await self._template.spawn(spec)
            with contextlib.suppress(OSError):  # it has died already
                os.setpriority(os.PRIO_PROCESS, self._child.pid, NICE)
            # Why by the pipe: what the template is asked stays in its memory, which every reader is forked from.
            _taken(await _answer(self._child, {"op": "open", **place_to_wire(self._place)}, lambda done, of: None))
        return self._child

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child.kill()
            self._child = None


def _make_folders(folders: list[Path]) -> None:
    """Durably: the process itself cannot flush what lies above them."""
    for folder in folders:
        make_folder(folder)
        sync_folder(folder.parent)


def _taken(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["op"] == "error":
        raise PondkeeperError.from_wire({key: value for key, value in answer.items() if key != "op"})
    return answer


async def _answer(child: Child, message: dict[str, Any], on_progress: OnProgress) -> dict[str, Any]:
    """A bucket that does not answer is given up long before the process is taken for hung."""
    child.send(message)
    while (answer := await next_message(child, WHO, SILENCE_S))["op"] == "progress":
        on_progress(answer["done"], answer["of"])
    return answer

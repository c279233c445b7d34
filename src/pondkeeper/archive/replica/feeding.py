"""One feeder process as the keeper asks it: one request at a time, a successor when it dies."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pondkeeper.databases.archiving import Publication
from pondkeeper.errors import PondkeeperError, WorkerDied
from pondkeeper.snapshots.changes import Ranges
from pondkeeper.workers.child import Child
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.patience import next_message, next_sign
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY: Final = "pondkeeper.archive.replica.feeder"
WHO: Final = "The process that reads snapshots for replicas"
SILENCE_S: Final = 30.0
IDLE_END_S: Final = 600.0
OOM_SCORE_ADJ: Final = 400


class FeederProcess:
    """One feeder process: started when a replica asks, ended when none has for long."""

    def __init__(self, template: Template, fence: Fence) -> None:
        self._template = template
        self._fence = fence
        self._child: Child | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._is_unread = False

    async def look(
        self, newest: Publication, since: int | None, changed: Ranges | None, keep: list[int]
    ) -> tuple[dict[str, Any], bytes]:
        """Its description of a version, and the digests of all blocks."""
        message = {"op": "look", "version": newest.version, "path": newest.path, "keep": keep}
        child = await self._asked(message | {"since": since, "changed": changed})
        digests = bytearray()
        described = await next_message(child, WHO, SILENCE_S)
        self._check(described, child)
        while not isinstance(frame := await next_sign(child, WHO, SILENCE_S), dict):
            digests += frame
        self._rest()
        return described, bytes(digests)

    async def blocks(self, digests: list[str], keep: list[int]) -> dict[str, bytes]:
        """The blocks that there are, sealed."""
        child = await self._asked({"op": "blocks", "digests": digests, "keep": keep})
        found: dict[str, bytes] = {}
        while (message := await next_message(child, WHO, SILENCE_S))["op"] != "end":
            self._check(message, child)
            if message["op"] == "block":
                found[message["digest"]] = await _data(child, message["size_bytes"])
        self._rest()
        return found

    async def stop(self) -> None:
        self._stay()
        if (child := self._child) is not None:
            self._end()
            await asyncio.shield(child.exited)

    async def _asked(self, message: dict[str, Any]) -> Child:
        """The child, with the message on its way. Until `_rest` its answer is unread: one that was left so is ended."""
        self._stay()
        if self._child is not None and (self._child.exited.done() or self._is_unread):
            self._end()
        if self._child is None:
            spec = ChildSpec("feeder", ENTRY, {}, oom_score_adj=OOM_SCORE_ADJ, fence=self._fence)
            self._child = await self._template.spawn(spec)
        self._is_unread = True
        self._child.send(message)
        return self._child

    def _check(self, message: dict[str, Any], child: Child) -> None:
        """Raise what the feeder answers as an error: the whole answer, so that it may be asked again."""
        if message["op"] == "error":
            self._is_unread = False
            raise PondkeeperError.from_wire({key: value for key, value in message.items() if key != "op"})
        if message["op"] not in ("looked", "block", "missing"):
            child.kill()
            raise WorkerDied(f"{WHO} sent what it never sends, and was ended.")

    def _rest(self) -> None:
        self._is_unread = False
        self._idle = asyncio.get_running_loop().call_later(IDLE_END_S, self._end)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


async def _data(child: Child, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        frame = await next_sign(child, WHO, SILENCE_S)
        if isinstance(frame, dict):
            child.kill()
            raise WorkerDied(f"{WHO} sent what it never sends, and was ended.")
        data += frame
    return bytes(data)

"""The ceiling on a child's memory, above the limit that the engine keeps by itself.

Two walls stand above it: RLIMIT_DATA, at which an allocation fails and the process goes on, and the watchdog here, which
kills. Why both: the first is exact and cheap, and one crash in native code was seen behind it; the second needs nothing
of the child.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from pondkeeper.workers.child import Child

WATCH_INTERVAL_S = 0.1
_MIB = 1024 * 1024
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ceiling:
    """The walls above the engine's own `memory_limit`."""

    memory_limit_bytes: int
    room_bytes: int = 768 * _MIB
    watch_room_bytes: int = 512 * _MIB

    @property
    def rlimit_data_bytes(self) -> int:
        """Room for what knows nothing of the engine's limit (scalar functions, Arrow, Python), and no more."""
        return int(self.memory_limit_bytes * 1.5) + self.room_bytes

    @property
    def rss_bytes(self) -> int:
        """Where the watchdog kills: what slips through RLIMIT_DATA is mapped files and shared memory."""
        return self.rlimit_data_bytes + self.watch_room_bytes

    @property
    def rlimits(self) -> dict[str, int]:
        """The kernel's part, as a ChildSpec takes it."""
        return {"data": self.rlimit_data_bytes}

    async def watch(self, child: Child, before_kill: Callable[[], None]) -> None:
        """Kill the child when it is above; `before_kill` says whose fault it was. Returns when the child has ended."""
        while not child.exited.done():
            await asyncio.sleep(WATCH_INTERVAL_S)
            rss_bytes = child.rss_bytes()
            if rss_bytes > self.rss_bytes:
                _log.warning("over its memory ceiling", child=child.name, pid=child.pid, rss_bytes=rss_bytes)
                before_kill()
                child.kill()

"""A database as its status and its metrics show it: plain data, put together from memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pondkeeper.databases.requests import SnapshotInfo
from pondkeeper.databases.watching import Sight
from pondkeeper.errors import PondkeeperError
from pondkeeper.writer.desk import WriterDesk
from pondkeeper.writer.queue import WriteQueue

_SHOWN = ("version", "created_at", "size_bytes", "blocks_copied", "bytes_copied", "method", "elapsed_ms")


@dataclass
class Counters:
    """What has been done since the keeper started."""

    commits: int = 0
    publishes: int = 0
    publish_bytes: int = 0
    publish_s: float = 0.0
    repairs: int = 0
    restores: int = 0
    restore_s: float = 0.0

    def published(self, size_bytes: int, elapsed_ms: float) -> None:
        """Count one publish: the bytes that were copied and the time that the copier took."""
        self.publishes += 1
        self.publish_bytes += size_bytes
        self.publish_s += elapsed_ms / 1000

    def restored(self, elapsed_s: float) -> None:
        """Count one restore in place, or the undoing of one."""
        self.restores += 1
        self.restore_s += elapsed_s


@dataclass(frozen=True)
class Published:
    """The newest snapshot, how long it has been the newest, and what was counted."""

    newest: SnapshotInfo | None
    age_s: float
    counters: Counters


def describe(
    name: str,
    published: Published,
    sight: Sight,
    desk: WriterDesk | None,
    line: dict[str, Any],
    problem: PondkeeperError | None,
) -> dict[str, Any]:
    """The status of a database as `GET /v1/databases/{name}` answers it."""
    newest = published.newest
    return {
        "name": name,
        "state": "ready" if newest else ("unavailable" if problem else "starting"),
        "version": newest.version if newest else None,
        "snapshot": _snapshot(newest, published.age_s) if newest else None,
        "file": {"size_bytes": sight.size_bytes, "wal_bytes": sight.wal_bytes},
        "lease": {**sight.lease(), "holder": sight.lease_holder or (desk.holder() if desk else None)},
        "foreign": sight.foreign,
        "writer": {
            "is_open": desk.is_open if desk else False,
            "pid": desk.pid if desk else None,
            "waiting_for": desk.waiting_for if desk else None,
        },
        "queue": line,
        "problem": problem.to_wire() if problem else None,
        "counters": asdict(published.counters),
    }


def describe_line(queue: WriteQueue) -> dict[str, Any]:
    """The queue in numbers of this moment."""
    return {"depth": queue.depth, "by_priority": queue.depths(), "oldest_s": round(queue.oldest_s, 3)}


def _snapshot(newest: SnapshotInfo, age_s: float) -> dict[str, Any]:
    return {**{name: getattr(newest, name) for name in _SHOWN}, "age_s": round(age_s, 3)}

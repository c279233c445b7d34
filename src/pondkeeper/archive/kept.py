"""One database that the keeper archives: what waits, what was done, who waits for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pondkeeper.archive.backlog import Backlog
from pondkeeper.archive.upkeep import Verified
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import DatabasePaths


@dataclass
class Counters:
    """What has been archived since the keeper started."""

    versions: int = 0
    blocks_hashed: int = 0
    blocks_put: int = 0
    bytes_put: int = 0
    archiving_s: float = 0.0
    failures: int = 0

    def add(self, answer: dict[str, Any]) -> None:
        """One version more."""
        self.versions += 1
        for name in ("blocks_hashed", "blocks_put", "bytes_put"):
            setattr(self, name, getattr(self, name) + answer[name])
        self.archiving_s += answer["elapsed_ms"] / 1000


class Kept:
    """One database of the archive."""

    def __init__(self, paths: DatabasePaths, interval_s: float, verified: Verified | None) -> None:
        self.paths = paths
        self.verified = verified
        self.backlog = Backlog(interval_s)
        self.counters = Counters()
        self.is_behind = False
        self.is_asked_for = False
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []

    def settle(self, error: PondkeeperError | None) -> None:
        """Tell those who wait: of a fault all, else those whose version is in."""
        archived = self.backlog.archived.version if self.backlog.archived else 0
        for version, future in self.waiters:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error.again())
            elif version <= archived:
                future.set_result(None)
        self.waiters = [waiter for waiter in self.waiters if not waiter[1].done()]

"""Waiting for a turn: what the run's status says meanwhile, and when it is given up because the run is to end."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pondkeeper.writer.lease import Holder

FLUSH_WAIT_S: Final = 5.0  # Why: below `runs.kill_after_s`, so that a run that flushes what succeeded ends by itself.


class Watcher(Protocol):
    """Who is told how a write gets on: the run, whose status shows it. Called from any thread; must not wait."""

    stopping: threading.Event

    def waiting(self, lease: dict[str, Any]) -> None:
        """The turn is waited for: `holder`, `why`, `since`, `waiting_since`, `position`. Again when it changes."""

    def holding(self) -> None:
        """The turn has come: the load runs, or the program may open the file."""

    def released(self, held_s: float, version: int | None) -> None:
        """The turn is over: how long the file was held, and the version that has what was written (None: nothing was)."""


class Waiting:
    """One turn that is waited for, or may have to be: the run hears of it only when it is. `with` ends it."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._told: dict[str, Any] = {}
        self._stopped_at: float | None = None
        self._holds = False
        self.held_s = 0.0
        self.version: int | None = None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        """The turn is over, or was not had: the run hears of it, with what was noted here, if it has heard anything."""
        if self._told or self._holds:
            self._watcher.released(self.held_s, self.version)

    def tell(self, holder: str | None, why: str | None, since: str | None, position: int) -> None:
        """Who has the file, why and since when; how many are before this run."""
        lease = {"holder": holder, "why": why, "since": since, "waiting_since": self._since, "position": position}
        if lease != self._told and not self._holds:
            self._told = lease
            self._watcher.waiting(lease)

    def on_wait(self, holder: Holder | None, ahead: int) -> None:
        """The same, as the lease tells it."""
        if holder is None:
            self.tell(None, None, None, ahead)
        else:
            self.tell(f"{holder.who} (pid {holder.pid})", holder.why, holder.since, ahead)

    def holding(self) -> None:
        """The turn has come."""
        if not self._holds:
            self._holds = True
            self._watcher.holding()

    def is_given_up(self) -> bool:
        """Whether the run is to end and its turn did not come in the time that it has to flush what succeeded."""
        if not self._watcher.stopping.is_set():
            return False
        self._stopped_at = self._stopped_at or time.monotonic()
        return time.monotonic() - self._stopped_at > FLUSH_WAIT_S

"""What happens in a keeper, told to whoever listens: a bounded number of events for each, and never a wait for anybody."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

OF_ARCHIVE: Final = ("archived", "archive_behind", "archive_caught_up", "backup_verified")
OF_RUNS: Final = ("run_queued", "run_started", "run_progress", "run_finished")
KINDS: Final = (
    "published", *OF_ARCHIVE, "repaired", "restored", "queue", "lease", "query_started", "query_ended", "query_killed", *OF_RUNS,
)  # fmt: skip
OF_QUERIES: Final = frozenset({"query_started", "query_ended", "query_killed"})
RECENT: Final = 2_000
RECENT_S: Final = 120.0
MAX_UNSENT: Final = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a database (or, of a run of a job that has none, in the keeper: then it is empty).

    `key_id`: whose query it is about; only its key and administrators see it.
    """

    number: int
    kind: str
    database: str
    at: float
    data: dict[str, Any]
    key_id: str | None = None

    def describe(self) -> dict[str, Any]:
        """The event for a listener."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {"kind": self.kind, "database": self.database or None, "at": at, **self.data}


class Listener:
    """Somebody who listens. When more waits for him than he may leave unsent, he has missed some, and is let go."""

    def __init__(self, hub: EventHub, accepts: Callable[[Event], bool]) -> None:
        self._hub = hub
        self._accepts = accepts
        self._unsent: deque[Event] = deque()
        self._wake = asyncio.Event()
        self.has_missed_some = False
        self.is_over = False

    def offer(self, event: Event) -> None:
        """Let him have the event, if it is for him; never waits."""
        if self.has_missed_some or not self._accepts(event):
            return
        if len(self._unsent) >= MAX_UNSENT:
            self._unsent.clear()
            self.has_missed_some = True
        else:
            self._unsent.append(event)
        self._wake.set()

    async def next(self, timeout_s: float) -> list[Event]:
        """What has happened since, at least one event; nothing when nothing did, when some were missed, or at the end."""
        if not self._unsent and not self.has_missed_some and not self.is_over:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        found = list(self._unsent)
        self._unsent.clear()
        return found

    def end(self) -> None:
        """Nothing more comes."""
        self.is_over = True
        self._wake.set()

    def close(self) -> None:
        """He does not listen any more."""
        self._hub.forget(self)


class EventHub:
    """All that happens. Without listeners, and for a while after the last one, an event costs a look at a clock."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self._number = 0
        self._listeners: set[Listener] = set()
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._keeps_until = 0.0
        self._is_closed = False

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens, or may come back for what he has missed."""
        return bool(self._listeners) or time.monotonic() < self._keeps_until

    @property
    def count(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def emit(self, kind: str, database: str, key_id: str | None = None, **data: Any) -> None:
        """Tell it to everybody; never waits."""
        if not self.is_heard:
            return
        self._number += 1
        event = Event(self._number, kind, database, time.time(), data, key_id)
        self._recent.append(event)
        for listener in self._listeners:
            listener.offer(event)

    def id_of(self, event: Event) -> str:
        """By which a listener that comes back says how far he was."""
        return f"{self.epoch}-{event.number}"

    def listen(self, accepts: Callable[[Event], bool], last_id: str | None = None) -> Listener:
        """A new listener, who gets what happened after `last_id`; one that cannot is told that he has missed some."""
        listener = Listener(self, accepts)
        if not self.is_heard:
            self._recent.clear()  # Why: nobody has kept up what happened in between.
        if last_id is not None:
            self._replay(listener, last_id)
        if self._is_closed:
            listener.end()
        self._listeners.add(listener)
        return listener

    def _replay(self, listener: Listener, last_id: str) -> None:
        epoch, _, number = last_id.partition("-")
        seen = int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else -1
        first = self._recent[0].number if self._recent else self._number + 1
        if epoch != self.epoch or not first - 1 <= seen <= self._number:
            listener.has_missed_some = True
            return
        for event in self._recent:
            if event.number > seen:
                listener.offer(event)

    def forget(self, listener: Listener) -> None:
        """He has gone; what happens is kept for a while, should he come back."""
        self._listeners.discard(listener)
        self._keeps_until = time.monotonic() + RECENT_S

    def close(self) -> None:
        """The keeper stops: whoever listens is let go."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end()

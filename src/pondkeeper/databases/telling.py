"""Changes of a database's queue and lease as events, seen by comparing one look with the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pondkeeper.databases.events import EventHub
from pondkeeper.databases.watching import Sight


class Teller:
    """Tells of one database; the first look tells nothing."""

    def __init__(self, events: EventHub, database: str, writes: Callable[[], int]) -> None:
        self._events = events
        self._database = database
        self._writes = writes
        self._seen: dict[str, dict[str, Any]] = {}

    def look(self, sight: Sight) -> None:
        """Compare with the look before, and tell what has changed."""
        lease = sight.lease()
        holder = lease["holder"] or {}
        self._tell(
            "lease",
            {
                "holder": {name: holder.get(name) for name in ("who", "why", "since", "pid")} if holder else None,
                "foreign": [{"program": each["program"], "pid": each["pid"]} for each in sight.foreign],
            },
        )
        self._tell("queue", {"writes": self._writes(), "programs": lease["waiting"]})

    def _tell(self, kind: str, state: dict[str, Any]) -> None:
        before = self._seen.get(kind)
        self._seen[kind] = state
        if before is not None and before != state:
            self._events.emit(kind, self._database, **state)

"""How long programs have waited for the lease and have had it, from one look at the database to the next."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from pondkeeper.databases.watching import Sight
from pondkeeper.writer.timings import Timings


class ProgramTimes:
    """Notices who has left the line and who has given the lease back; those between two looks are not seen."""

    def __init__(self) -> None:
        self.waits = Timings()
        self.holds = Timings()
        self._waiting: set[tuple[int, int]] = set()
        self._holder: dict[str, Any] | None = None

    def note(self, sight: Sight) -> None:
        """Take the next look into account."""
        waiting = {(place.asked_ns, place.pid) for place in sight.programs}
        now_ns = time.monotonic_ns()
        for asked_ns, _ in self._waiting - waiting:
            self.waits.record((now_ns - asked_ns) / 1e9)
        self._waiting = waiting
        before, self._holder = self._holder, sight.lease_holder
        if before is not None and (self._holder is None or self._holder["since"] != before["since"]):
            self.holds.record(_age_s(before["since"]))


def _age_s(since: str) -> float:
    """Seconds since that moment; 0 for a holder that had not signed yet."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return 0.0

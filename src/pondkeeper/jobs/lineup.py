"""Which run comes next: of those that wait, by priority and age, one of a job at a time, and not more than may run at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pondkeeper.jobs.definition import PRIORITIES
from pondkeeper.jobs.status import RunStatus

LONGEST_PAUSE_S: Final = 3600.0
_ORDER = {priority: place for place, priority in enumerate(PRIORITIES)}


@dataclass
class Lineup:
    """The runs that wait and those that go on, in memory; their folders are the truth."""

    max_running: int

    def __post_init__(self) -> None:
        self._queued: dict[str, RunStatus] = {}
        self._running: dict[str, RunStatus] = {}

    def add(self, status: RunStatus) -> None:
        """It waits."""
        self._running.pop(status.run_id, None)
        self._queued[status.run_id] = status

    def begin(self, status: RunStatus) -> None:
        """It goes on."""
        self._queued.pop(status.run_id, None)
        self._running[status.run_id] = status

    def remove(self, run_id: str) -> None:
        """It does neither."""
        self._queued.pop(run_id, None)
        self._running.pop(run_id, None)

    def queued_of(self, job: str) -> RunStatus | None:
        """The run of the job that waits."""
        return next((status for status in self._queued.values() if status.job == job), None)

    def running_of(self, job: str) -> RunStatus | None:
        """The run of the job that goes on."""
        return next((status for status in self._running.values() if status.job == job), None)

    @property
    def queued(self) -> list[RunStatus]:
        """Those that wait, as they come next."""
        return sorted(self._queued.values(), key=lambda status: (_ORDER.get(status.priority, 1), status.created_at, status.run_id))

    @property
    def running(self) -> list[RunStatus]:
        """Those that go on."""
        return list(self._running.values())

    def next(self, now: float, unlimited: Iterable[str] = ()) -> RunStatus | None:
        """The run to start now; None when none may. Jobs that always run take nobody's place."""
        endless = set(unlimited)
        busy = {status.job for status in self._running.values()}
        is_full = len(busy - endless) >= self.max_running
        for status in self.queued:
            if _is_due(status, now) and status.job not in busy and (status.job in endless or not is_full):
                return status
        return None

    def next_due_at(self, now: float) -> float | None:
        """When the next run comes whose time has not come yet."""
        later = [status.not_before for status in self._queued.values() if status.not_before is not None and not _is_due(status, now)]
        return min(later, default=None)


def _is_due(status: RunStatus, now: float) -> bool:
    """Whether its pause is over. One that is longer than any pause was made before the clock was set back."""
    return status.not_before is None or status.not_before <= now or status.not_before > now + LONGEST_PAUSE_S

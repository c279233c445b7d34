"""What of one database waits for the archive: its newest version, and all that changed since the one archived last.

However long the archive cannot be reached, this is one version and one list of ranges: nothing here grows with time.
"""

from __future__ import annotations

from dataclasses import dataclass

from pondkeeper.databases.archiving import Publication
from pondkeeper.errors import PondkeeperError
from pondkeeper.snapshots.changes import Ranges, union

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0


@dataclass(frozen=True)
class Task:
    """Archive this version. `changed`: blocks that may differ from version `since`; None when any may."""

    publication: Publication
    since: int | None
    changed: Ranges | None


class Backlog:
    """One database. Times are those of one monotonic clock, given by the caller."""

    def __init__(self, interval_s: float) -> None:
        self.newest: Publication | None = None
        self.archived: Publication | None = None
        self.archived_at = 0.0
        self.problem: PondkeeperError | None = None
        self.failures = 0
        self._interval_s = interval_s
        self._since: int | None = None
        self._changed: Ranges | None = None
        self._task: Task | None = None
        self._waits_from: float | None = None
        self._first_after_task: float | None = None
        self._not_before = 0.0
        self._turn_was: float | None = None

    def published(self, publication: Publication, now: float) -> None:
        """A newer version is there. One that was skipped leaves nothing but what it changed."""
        follows = self.newest is not None and publication.changed_since == self.newest.version
        self._changed = union(self._changed, publication.changed) if follows else None
        self.newest = publication
        if self._waits_from is None:
            self._waits_from = now
        if self._task is not None and self._first_after_task is None:
            self._first_after_task = now

    @property
    def is_waiting(self) -> bool:
        """Whether a version is not archived yet."""
        return self._waits_from is not None

    def due_in_s(self, now: float) -> float | None:
        """Seconds until there is something to archive; None while nothing waits, or one is under way."""
        if self._task is not None or self._waits_from is None:
            return None
        return max(0.0, self._not_before - now)

    def begin(self, now: float, *, is_extra: bool = False) -> Task:
        """The newest version, to be archived now; `is_extra`: before its time, because somebody asks for it."""
        assert self.newest is not None
        self._turn_was = self._not_before if is_extra and self.failures else None
        self._task = Task(self.newest, self._since, self._changed if self._since is not None else None)
        self._since, self._changed = self.newest.version, []
        self._first_after_task = None
        self._not_before = now + self._interval_s
        return self._task

    def done(self, now: float) -> None:
        """The task's version is in the archive."""
        assert self._task is not None
        self.archived, self.archived_at, self._task = self._task.publication, now, None
        self._waits_from, self._first_after_task = self._first_after_task, None
        self.problem, self.failures = None, 0

    def failed(self, error: PondkeeperError, now: float) -> None:
        """It is not, as far as we know; it is tried again with whatever is the newest then, ever less often."""
        assert self._task is not None
        self._changed = union(self._task.changed, self._changed)
        self._since, self._task, self._first_after_task = self._task.since, None, None
        self.problem = error
        if self._turn_was is not None:  # Why: who asks again and again must not put off the next attempt.
            self._not_before = self._turn_was
            return
        self.failures += 1
        self._not_before = now + min(FIRST_RETRY_S * 2.0 ** min(self.failures - 1, 10), LONGEST_RETRY_S)

    def superseded(self, now: float) -> None:
        """The task's snapshot was retired before it could be opened: a newer one is there, or about to be."""
        assert self._task is not None
        self._changed = union(self._task.changed, self._changed)
        self._since, self._task, self._first_after_task = self._task.since, None, None
        self._not_before = now

    def lag_s(self, now: float) -> float:
        """For how long the oldest version that is not archived has waited; 0 when none does."""
        return 0.0 if self._waits_from is None else max(0.0, now - self._waits_from)

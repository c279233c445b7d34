"""Which file is next: those of the query in their order, those that failed for now when their time has come, at a set pace."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pondkeeper.kinds.download.wanted import Wanted

MOST_PARKED: Final = 2000
UNREACHABLE_IN_A_ROW: Final = 100
POLL_S: Final = 0.5


@dataclass(slots=True, eq=False)
class Task:
    """A file that is to be downloaded, and how often that was tried."""

    wanted: Wanted
    attempts: int = 0

    @property
    def host(self) -> str:
        """Whom it is asked of."""
        return urlsplit(self.wanted.url or "").netloc


class Line:
    """Hands tasks to workers. A server that asks for a pause (Retry-After) gets it, for all that is to be asked of it.

    `found_nobody`: it has closed itself, since nobody answers any more.
    """

    def __init__(self, source: Iterator[Wanted], *, requests_per_s: float = 0.0) -> None:
        self._source: Iterator[Wanted] | None = source
        self._between_s = 1.0 / requests_per_s if requests_per_s else 0.0
        self._next_at = 0.0
        self._parked: list[tuple[float, int, Task]] = []
        self._count = 0
        self._under_way = 0
        self._pauses: dict[str, float] = {}
        self._closed = False
        self._unreachable_in_a_row = 0
        self.found_nobody = False
        self._changed = threading.Condition()

    def take(self) -> Task | None:
        """The next task, when there is one to do now; None when there is and will be none. Give it back by `done` or `park`."""
        with self._changed:
            while not self._closed:
                task, wait_s = self._next()
                if task is not None:
                    return self._at_its_pace(task)
                if wait_s is None:
                    self._changed.notify_all()
                    return None
                self._changed.wait(wait_s)
            return None

    def _at_its_pace(self, task: Task) -> Task | None:
        """The task, when its request may be sent; None when the line was closed meanwhile."""
        self._under_way += 1
        wait_s = self._paced()
        if wait_s > 0 and self._changed.wait_for(lambda: self._closed, wait_s):
            self._under_way -= 1
            return None
        task.attempts += 1
        return task

    def done(self, *, unreachable: bool = False) -> None:
        """A task is over, whatever became of it. When so many in a row got no answer at all, no more is handed out.

        Why here, and not where results are counted: that is done now and then, and thousands may be asked for meanwhile.
        """
        with self._changed:
            self._under_way -= 1
            self._unreachable_in_a_row = self._unreachable_in_a_row + 1 if unreachable else 0
            if self._unreachable_in_a_row >= UNREACHABLE_IN_A_ROW:
                self.found_nobody = self._closed = True
                self._changed.notify_all()
            self._changed.notify()

    def park(self, task: Task, wait_s: float) -> None:
        """A task is to be tried again after a while."""
        with self._changed:
            self._under_way -= 1
            self._push(task, time.monotonic() + wait_s)
            self._changed.notify()

    def pause(self, host: str, wait_s: float) -> None:
        """Ask nothing of this host for a while."""
        with self._changed:
            self._pauses[host] = max(self._pauses.get(host, 0.0), time.monotonic() + wait_s)

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _push(self, task: Task, due_at: float) -> None:
        self._count += 1
        heapq.heappush(self._parked, (due_at, self._count, task))

    def _next(self) -> tuple[Task | None, float | None]:
        """A task; or how long to wait until there may be one; or neither, when all is done."""
        now = time.monotonic()
        while self._parked and self._parked[0][0] <= now:
            task = heapq.heappop(self._parked)[2]
            if not self._is_paused(task, now):
                return task, 0.0
        while self._source is not None and len(self._parked) < MOST_PARKED:
            wanted = next(self._source, None)
            if wanted is None:
                self._source = None
                break
            task = Task(wanted)
            if not self._is_paused(task, now):
                return task, 0.0
        if self._parked:
            return None, min(POLL_S, max(0.0, self._parked[0][0] - now))
        return None, (POLL_S if self._under_way else None)

    def _is_paused(self, task: Task, now: float) -> bool:
        """Whether its host is to be left alone; then it is parked until that is over."""
        if not self._pauses:
            return False
        until = self._pauses.get(task.host, 0.0)
        if until > now:
            self._push(task, until)
            return True
        return False

    def _paced(self) -> float:
        """How long the request must wait for its place in the pace."""
        if not self._between_s:
            return 0.0
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + self._between_s
        return at - now

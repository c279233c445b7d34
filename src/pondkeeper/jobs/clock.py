"""The clock of jobs: looks what is due, and has it started. It starts nothing itself, and decides nothing that is not in `due`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from pondkeeper.errors import PondkeeperError
from pondkeeper.jobs import due
from pondkeeper.jobs.notices import stale_notice
from pondkeeper.workers.side_tasks import SideTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pondkeeper.jobs.book import JobBook
    from pondkeeper.jobs.definition import Job
    from pondkeeper.jobs.history import History
    from pondkeeper.jobs.status import RunStatus

LOOK_S: Final = 2.0
TRY_AGAIN_S: Final = 30.0
AT_A_TIME: Final = 50
_log = structlog.get_logger(__name__)


class Trigger(Protocol):
    """Has a run of a job queued, or finds the one that is; raises PondkeeperError when that cannot be."""

    async def __call__(self, name: str, *, trigger: str) -> Any: ...


class JobClock:
    """Has jobs started by their schedules and after each other. `is_busy`: whether a run of a job is queued or goes on."""

    def __init__(
        self,
        book: JobBook,
        history: History,
        trigger: Trigger,
        is_busy: Callable[[str], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._history = history
        self._trigger = trigger
        self._is_busy = is_busy
        self._now = now
        self._tasks = SideTasks()
        self._wake = asyncio.Event()
        self._ended_at: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._refused: dict[str, str] = {}

    def start(self) -> None:
        """Look from now on."""
        self._tasks.start(self._run())

    async def stop(self) -> None:
        """Have nothing started any more."""
        await self._tasks.end()

    def ended(self, status: RunStatus) -> None:
        """A run has ended, and is recorded: others may be due because of it."""
        self._ended_at[status.job] = self._now()
        self._wake.set()

    def read_again(self) -> None:
        """Read the settings file again, also when it looks unchanged."""
        self._book.forget()
        self._wake.set()

    def look_soon(self) -> None:
        """Something has changed: look at once."""
        self._wake.set()

    def next_due_at(self, job: Job) -> float | None:
        """When its schedule comes next; None without one, and while it is switched off."""
        mark = self._history.marks.get(job.name)
        if mark is None or not self._book.is_enabled(job) or mark.schedule in (None, due.OFF):
            return None
        return due.next_due_at(job, mark)

    async def look(self) -> float:
        """Have what is due started; how long nothing can be due."""
        await self._book.look()
        await self._history.refresh()
        now = self._now()
        await self._settle(now)
        for number, job in enumerate(self._book.jobs(), start=1):
            await self._look_at(job, now)
            await self._look_how_old(job, now)
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)  # Why: of a thousand jobs none is due, and none of them would let go of the loop.
        return self._rest_s()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            rest_s = LOOK_S
            try:
                rest_s = await self.look()
            except PondkeeperError as error:
                _log.error("what is due could not be looked up; it is tried again", error=str(error))
            try:
                async with asyncio.timeout(rest_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _settle(self, now: float) -> None:
        """Have the marks of new and changed jobs so that they can be judged."""
        marks, jobs = self._history.marks, self._book.jobs()
        changes = {job.name: due.settled(job, marks[job.name], now, is_enabled=self._book.is_enabled(job)) for job in jobs}
        await self._history.change_marks({name: values for name, values in changes.items() if values})

    async def _look_at(self, job: Job, now: float) -> None:
        mark = self._history.marks[job.name]
        is_off = not self._book.is_enabled(job) or mark.schedule == due.OFF  # Why both: it may just have been switched on.
        if is_off or now < self._not_before.get(job.name, 0.0):
            return
        verdict = due.by_schedule(job, mark, now)
        if verdict is due.Verdict.SKIP:
            _log.info("times of a schedule were missed, and are not made up for", job=job.name)
        if verdict is not due.Verdict.NOT_DUE and (verdict is due.Verdict.SKIP or await self._start(job, "schedule")):
            await self._history.change_mark(job.name, handled_until=now)
        elif due.is_always(job) and not self._is_busy(job.name) and now >= self._rested_at(job):
            await self._start(job, "schedule")
        up_to = due.by_others(job, self._history.totals, mark)
        if up_to is not None and await self._start(job, "after"):
            await self._history.change_mark(job.name, after_seq=up_to)

    async def _start(self, job: Job, trigger: str) -> bool:
        """Have it started; False, and again after a while, when that cannot be."""
        try:
            # Why before the mark says so: a keeper that dies between the two starts it twice rather than not at all.
            await self._trigger(job.name, trigger=trigger)
        except PondkeeperError as error:
            self._not_before[job.name] = self._now() + TRY_AGAIN_S
            if self._refused.get(job.name) != error.code:
                _log.error("a job that is due could not be started; it is tried again", job=job.name, trigger=trigger, error=str(error))
            self._refused[job.name] = error.code
            return False
        self._refused.pop(job.name, None)
        self._ended_at.pop(job.name, None)
        return True

    async def _look_how_old(self, job: Job, now: float) -> None:
        found = stale_notice(job, self._history.totals.get(job.name), self._history.marks[job.name], now)
        if found is not None:
            await self._history.notify(job.name, {"stale_since": now}, found)

    def _rested_at(self, job: Job) -> float:
        totals = self._history.totals.get(job.name)
        ended_at = self._ended_at.get(job.name) or (totals.last_at if totals else None) or 0.0
        return min(ended_at, self._now()) + due.pause_s(job, totals)

    def _rest_s(self) -> float:
        now = self._now()
        times = [at for job in self._book.jobs() if (at := self.next_due_at(job)) is not None]
        return min(LOOK_S, max(0.005, min(times) - now)) if times else LOOK_S

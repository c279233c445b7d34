"""The desk of the jobs in a keeper: what routes and clock ask for. Nothing here makes the event loop wait for a disk."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pondkeeper.errors import KeeperStopping, PondkeeperError, RunNotFound
from pondkeeper.files.paths import Home
from pondkeeper.jobs.book import JobBook
from pondkeeper.jobs.carrying import Carrier, Emit
from pondkeeper.jobs.clock import JobClock
from pondkeeper.jobs.definition import SKIP
from pondkeeper.jobs.describing import describe_job
from pondkeeper.jobs.drift import accept
from pondkeeper.jobs.due import is_always
from pondkeeper.jobs.endings import cancel_run
from pondkeeper.jobs.folders import is_run_id, log_file, read_status, runs_of
from pondkeeper.jobs.history import History
from pondkeeper.jobs.launching import Launcher, file_of, unwritable, with_database
from pondkeeper.jobs.notifying import Notifier
from pondkeeper.jobs.status import RunStatus, iso, status_json

if TYPE_CHECKING:
    from pondkeeper.jobs.definition import Job
    from pondkeeper.settings import Settings

Files = Callable[[], Mapping[str, Path]]


class JobsDesk:
    """All jobs of a keeper and their runs. `files`: its databases by name, as they are now."""

    def __init__(self, home: Home, settings: Settings, history: History, book: JobBook, files: Files, emit: Emit) -> None:
        self.history = history
        self.book = book
        self.carrier = Carrier(home, settings.runs, history, emit)
        self.clock = JobClock(book, history, self._triggered, self.is_busy)
        self.notifier = Notifier(history)
        self._home = home
        self._files = files
        self._launcher = Launcher(home, settings)
        self._asking: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._is_stopping = False
        self.carrier.on_ended = self.clock.ended
        self.carrier.unlimited = lambda: [job.name for job in self.book.jobs() if is_always(job)]

    @staticmethod
    async def open(home: Home, settings: Settings, files: Files, emit: Emit) -> JobsDesk:
        """The desk, with the jobs of the settings file. Raises JobInvalid, SettingInvalid, ControlUnavailable and DatabaseReadOnly."""
        history = await History.open(home.control_db, settings.runs.keep_s)
        try:
            book = await JobBook.open(settings.file, history)
        except BaseException:  # Why: whatever ended it, the thread of the history must not outlive the attempt.
            await history.close()
            raise
        desk = JobsDesk(home, settings, history, book, files, emit)
        try:
            await desk.carrier.load()  # Why before anybody asks: who clicks again while a run goes on wants no second one.
        except OSError as error:
            await history.close()
            raise unwritable(error) from error
        return desk

    async def start(self) -> None:
        """Take up the runs that there are, and look from now on what is due."""
        await self.carrier.start()
        self.clock.start()
        self.notifier.start()

    async def stop(self) -> None:
        """Start nothing any more; what goes on is left to itself, or ended, as `runs.when_keeper_dies` says."""
        self._is_stopping = True
        await self.clock.stop()
        await self.carrier.stop()
        await self.notifier.stop()
        await self.history.close()

    # Jobs

    @property
    def problem(self) -> PondkeeperError | None:
        """What is wrong with the settings file since it was last changed."""
        return self.book.problem

    def jobs(self) -> list[Job]:
        """All jobs, each with the database that it is for."""
        return [self._with_database(job) for job in self.book.jobs()]

    def find(self, name: str) -> Job | None:
        """The job of that name, if there is one."""
        job = self.book.find(name)
        return None if job is None else self._with_database(job)

    def _with_database(self, job: Job) -> Job:
        return with_database(job, self._files())

    def is_busy(self, name: str) -> bool:
        """Whether a run of the job waits or goes on."""
        return self.current(name) is not None

    def current(self, name: str) -> RunStatus | None:
        """The run of the job that goes on, else the one that waits."""
        return self.carrier.lineup.running_of(name) or self.carrier.lineup.queued_of(name)

    async def describe(self, name: str, *, with_settings: bool = False) -> dict[str, Any]:
        """The job as it is shown. Raises JobNotFound."""
        job = self._with_database(self.book.get(name))
        current = self.current(name)
        if current is not None:
            current = await asyncio.to_thread(read_status, self._home.root, current.run_id) or current
        last = await self.history.runs(name, limit=1)
        return describe_job(
            job,
            is_enabled=self.book.is_enabled(job),
            next_due_at=iso(self.clock.next_due_at(job)),
            current=None if current is None else status_json(current),
            last=last[0] if last else None,
            with_settings=with_settings,
        )

    async def enable(self, name: str, enabled: bool) -> None:
        """Switch the job on or off, for its schedule and the jobs before it; also after a restart. Raises JobNotFound."""
        await self.history.set_enabled(self.book.get(name).name, enabled)
        self.clock.look_soon()

    async def accept_drift(self, name: str) -> list[dict[str, Any]]:
        """Let the next run of the job take over the changes that its last one asked about: which. Raises PondkeeperError."""
        return [dataclasses.asdict(each) for each in await asyncio.to_thread(accept, self._home, self.book.get(name).name)]

    # Runs

    async def trigger(self, name: str, trigger: str = "manual", by: str | None = None) -> dict[str, Any]:
        """A run of the job, queued durably; the one that waits already if there is one. Raises PondkeeperError.

        By hand, also the one that goes on: who clicks eight times wants one run. A job before it, or a schedule, that comes
        while one goes on has the next one queued (of a schedule with `missed = "skip"`: none), since what it is about may
        have come after that one had begun.
        """
        async with self._asking[name]:
            if self._is_stopping:
                raise KeeperStopping
            job = self._with_database(self.book.get(name))
            found = self.carrier.lineup.queued_of(name)
            if found is None and (trigger == "manual" or (trigger == "schedule" and job.missed == SKIP)):
                found = await self._going_on(name)
            if found is None:
                found = await self._queue(job, trigger, by)
            return status_json(found)

    async def _going_on(self, name: str) -> RunStatus | None:
        """The run of the job that goes on; not one that has just ended, which nobody has told us yet."""
        running = self.carrier.lineup.running_of(name)
        status = running and await asyncio.to_thread(read_status, self._home.root, running.run_id)
        return None if status is None or status.is_final else status

    async def _queue(self, job: Job, trigger: str, by: str | None) -> RunStatus:
        file = file_of(job, self._files())
        try:
            status = await asyncio.to_thread(self._launcher.queue, job, file, trigger, by)
        except OSError as error:
            raise unwritable(error) from error
        self.carrier.add(status)
        return status

    async def _triggered(self, name: str, *, trigger: str) -> Any:
        return await self.trigger(name, trigger)

    async def run(self, run_id: str) -> dict[str, Any]:
        """The run as it stands, or as history has it. Raises RunNotFound."""
        if not is_run_id(run_id):
            raise RunNotFound
        status = await asyncio.to_thread(read_status, self._home.root, run_id)
        if status is not None:
            return status_json(status)
        found = await self.history.run(run_id)
        if found is None:
            raise RunNotFound
        return found

    async def runs(self, job: str | None = None, limit: int = 100, before: str | None = None) -> list[dict[str, Any]]:
        """Runs that wait, go on and have ended, newest first: of one job or all, older than the run `before`."""
        here = await asyncio.to_thread(runs_in_folders, self._home, job, limit, before)
        known = await self.history.runs(job, limit=limit, before=before)
        merged = {run["run_id"]: run for run in [*known, *here]}
        return [merged[run_id] for run_id in sorted(merged, reverse=True)[:limit]]

    async def cancel(self, run_id: str, by: str) -> dict[str, Any]:
        """Have the run end: at once if it waits, else soon. Raises RunNotFound."""
        if self._is_stopping:
            raise KeeperStopping
        try:
            status = await asyncio.to_thread(cancel_run, self._home.root, run_id, by)
        except OSError as error:
            raise unwritable(error) from error
        if status.is_final and any(each.run_id == run_id for each in self.carrier.lineup.queued):
            self.carrier.forget(status)
        return status_json(status)

    def log_file(self, run_id: str) -> Path:
        """Where the log of the run is."""
        return log_file(self._home.root, run_id)


def runs_in_folders(home: Home, job: str | None, limit: int, before: str | None) -> list[dict[str, Any]]:
    """Runs that have a folder, newest first. It blocks as long as the disk does."""
    found: list[dict[str, Any]] = []
    for run_id in runs_of(home.root):
        if before is not None and run_id >= before:
            continue
        status = read_status(home.root, run_id)
        if status is not None and (job is None or status.job == job):
            found.append(status_json(status))
        if len(found) >= limit:
            break
    return found

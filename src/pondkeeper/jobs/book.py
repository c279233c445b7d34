"""The jobs as they stand now: read from the settings file, again when that changes, kept when it is broken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from pondkeeper.errors import PondkeeperError
from pondkeeper.jobs.definition import Job, Notify, by_name
from pondkeeper.jobs.loading import job_named, load_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from pondkeeper.jobs.history import History

_log = structlog.get_logger(__name__)
Signature = tuple[int, int, int] | None
UNKNOWN: Signature = (-1, -1, -1)
SHOWN = 20


class JobBook:
    """All jobs of a keeper. `problem`: what is wrong with the file while it is broken; the jobs before that stand."""

    def __init__(self, file: Path | None, history: History) -> None:
        self.problem: PondkeeperError | None = None
        self._file = file
        self._history = history
        self._jobs: dict[str, Job] = {}
        self._signature: Signature = None
        self._reloading = asyncio.Lock()
        history.notify_of = self._notify_of

    @staticmethod
    async def open(file: Path | None, history: History) -> JobBook:
        """The jobs of a settings file. Raises JobInvalid or SettingInvalid: a keeper does not start on a broken one."""
        book = JobBook(file, history)
        await book.reload()
        if book.problem is not None:
            raise book.problem
        return book

    def jobs(self) -> list[Job]:
        """All of them, in the order of the file."""
        return list(self._jobs.values())

    def find(self, name: str) -> Job | None:
        """The job of that name, if there is one."""
        return self._jobs.get(name)

    def get(self, name: str) -> Job:
        """The job of that name. Raises JobNotFound."""
        return job_named(self._jobs.values(), name)

    def is_enabled(self, job: Job) -> bool:
        """Whether it runs by itself: what was said last by `enable` and `disable`, else what the file says."""
        mark = self._history.marks.get(job.name)
        return job.enabled if mark is None or mark.enabled is None else mark.enabled

    def forget(self) -> None:
        """Take the file for a changed one at the next look."""
        self._signature = UNKNOWN

    async def look(self) -> None:
        """Read the file again if it has changed."""
        if self._file is not None and await asyncio.to_thread(_signature, self._file) != self._signature:
            await self.reload()

    async def reload(self) -> None:
        """Read the file again. When it is broken, the old jobs stand, and `problem` says what is wrong."""
        async with self._reloading:
            # Trap: the signature first. A change while the file is read is then seen at the next look.
            signature = await asyncio.to_thread(_signature, self._file) if self._file else None
            try:
                jobs = by_name(await asyncio.to_thread(load_jobs, self._file))
            except PondkeeperError as error:
                self._signature, self.problem = signature, error
                _log.error("the jobs cannot be read; the old ones stand", error=str(error), problems=error.details.get("problems"))
                return
            await self._history.know(jobs)
            self._signature, self.problem = signature, None
            self._take(jobs)

    def _take(self, jobs: dict[str, Job]) -> None:
        old, self._jobs = self._jobs, jobs
        changed = sorted(name for name in jobs.keys() & old.keys() if not _is_same(jobs[name], old[name]))
        added, removed = sorted(jobs.keys() - old.keys()), sorted(old.keys() - jobs.keys())
        if added or changed or removed:
            _log.info("jobs read", count=len(jobs), added=added[:SHOWN], changed=changed[:SHOWN], removed=removed[:SHOWN])

    def _notify_of(self, name: str) -> Notify | None:
        job = self._jobs.get(name)
        return job.notify if job else None


def _signature(file: Path) -> Signature:
    """What changes when the file does; None while there is none."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _is_same(one: Job, other: Job) -> bool:
    """Whether they differ in nothing but their line."""
    return {name: getattr(one, name) for name in Job.__slots__ if name != "line"} == {
        name: getattr(other, name) for name in Job.__slots__ if name != "line"
    }

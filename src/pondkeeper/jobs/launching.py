"""Runs are made here (a folder with plan and status), and their supervisors started: the same for keeper and command line."""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pondkeeper.errors import DatabaseNotFound, DatabaseReadOnly, DiskFull, PondkeeperError
from pondkeeper.files.durable import make_folder, sync_folder
from pondkeeper.files.paths import HOME_NAME, Home, RunPaths
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.folders import new_run_id
from pondkeeper.jobs.plan import RunBounds, RunPlan, write_plan
from pondkeeper.jobs.status import Phase, RunStatus, write_status
from pondkeeper.settings import Settings

WITHOUT_DATABASE: Final = frozenset({"command", "python"})

@dataclass(frozen=True)
class Launcher:
    """Makes runs in one home, with the settings that hold there."""

    home: Home
    settings: Settings

    def queue(self, job: Job, database_file: Path | None, trigger: str, by: str | None = None) -> RunStatus:
        """A new run of the job, queued: durable when this returns, so that who was told its id finds it again."""
        now = time.time()
        paths = self._make_folder(now)
        plan = RunPlan(
            run_id=paths.run_id,
            job=job,
            attempt=1,
            trigger=trigger,
            database_file=database_file or Path(),
            home=self.home.root,
            folder=paths.folder,
            created_at=now,
            workdir=workdir_of(self.home, self.settings),
            bounds=self._bounds(),
        )
        status = RunStatus(
            run_id=paths.run_id,
            job=job.name,
            kind=job.kind,
            database=job.database,
            phase=Phase.QUEUED,
            attempt=1,
            trigger=trigger,
            created_at=now,
            updated_at=now,
            by=by,
            priority=job.priority,
        )
        write_plan(paths.plan_json, plan)
        write_status(paths.status_json, status, durable=True)
        return status

    def _make_folder(self, now: float) -> RunPaths:
        make_folder(self.home.runs)
        while True:
            paths = self.home.run(new_run_id(now))
            try:
                paths.folder.mkdir(mode=0o700)
            except FileExistsError:
                continue
            sync_folder(self.home.runs)
            return paths

    def _bounds(self) -> RunBounds:
        runs = self.settings.runs
        return RunBounds(
            kill_after_s=runs.kill_after_s, max_log_bytes=runs.max_log_bytes, staging_limit_bytes=runs.staging_limit_bytes
        )


def with_database(job: Job, files: Mapping[str, Path]) -> Job:
    """The job with the database that it is for: one that names none is for the only one, where there is one."""
    return dataclasses.replace(job, database=next(iter(files))) if job.database is None and len(files) == 1 else job


def file_of(job: Job, files: Mapping[str, Path]) -> Path | None:
    """The file of the job's database, of these by name; None of a job that needs none. Raises DatabaseNotFound."""
    if job.database is not None and job.database in files:
        return files[job.database]
    if job.database is not None:
        raise DatabaseNotFound(f"There is no database {job.database!r}, which the job {job.name} is for.")
    if job.kind in WITHOUT_DATABASE:
        return None
    raise DatabaseNotFound(f"The job {job.name} says no database, and there are {len(files)}.", remedy='Say it: `database = "…"`.')


def unwritable(error: OSError) -> PondkeeperError:
    """The error of a home that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk of the keeper's home is full.", private=str(error))
    return DatabaseReadOnly("The keeper's home cannot be written.", private=str(error))


def workdir_of(home: Home, settings: Settings) -> Path:
    """Where programs of jobs start: in the folder of the settings file; of one in a home, beside the home."""
    folder = settings.file.absolute().parent if settings.file is not None else home.root
    return folder.parent if folder == home.root or folder.name == HOME_NAME else folder

"""Runs are made here (a folder with plan and status), and their supervisors started: the same for keeper and command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.files.durable import make_folder, sync_folder
from pondkeeper.files.paths import HOME_NAME, Home, RunPaths
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.folders import new_run_id
from pondkeeper.jobs.plan import RunBounds, RunPlan, write_plan
from pondkeeper.jobs.status import Phase, RunStatus, write_status
from pondkeeper.settings import Settings


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


def workdir_of(home: Home, settings: Settings) -> Path:
    """Where programs of jobs start: in the folder of the settings file; of one in a home, beside the home."""
    folder = settings.file.absolute().parent if settings.file is not None else home.root
    return folder.parent if folder == home.root or folder.name == HOME_NAME else folder


def start_supervisor(paths: RunPaths, keeper_fd: int | None = None) -> subprocess.Popen[bytes]:
    """Start the supervisor of a queued run, in a session of its own; it outlives this process.

    It ends the run when the other end of `keeper_fd` is closed, which the kernel does when this process dies.
    """
    command = [sys.executable, "-P", "-m", "pondkeeper.kinds.supervisor", str(paths.folder)]
    return subprocess.Popen(
        command if keeper_fd is None else [*command, str(keeper_fd)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None,  # Why ours: a supervisor that cannot even start says so there, and nowhere else.
        env={**os.environ, "PONDKEEPER_RUN": paths.run_id},
        start_new_session=True,
        pass_fds=() if keeper_fd is None else (keeper_fd,),
    )

"""Runs where no keeper runs: the command line carries them out itself, by the same folders and the same supervisor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

from pondkeeper.errors import RunNotFound
from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile, is_flocked
from pondkeeper.files.paths import Home
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.endings import cancel_run, settle_lost
from pondkeeper.jobs.folders import read_status, runs_of
from pondkeeper.jobs.history import end_of_log, record_now
from pondkeeper.jobs.keeping import mark_recorded, prune
from pondkeeper.jobs.launching import Launcher, file_of, unwritable, with_database
from pondkeeper.jobs.loading import job_named, load_jobs
from pondkeeper.jobs.notifying import deliver_now
from pondkeeper.jobs.starting import start_supervisor
from pondkeeper.jobs.status import Phase, RunStatus, status_in
from pondkeeper.settings import Settings

LOOK_S: Final = 0.1
ASK_TIMEOUT_S: Final = 10.0


class RunAlone:
    """One run of a job without a keeper, from asking for it to its recorded end.

    A run of the job that goes on, or that a keeper has left in its queue, is taken up instead of a new one. Where a keeper
    comes meanwhile, it carries the run on, and this only looks.
    """

    def __init__(self, home: Home, settings: Settings, job: Job) -> None:
        self._home = home
        self._settings = settings
        self._job = job
        self.run_id = ""

    @staticmethod
    def begin(home: Home, settings: Settings, name: str, files: Mapping[str, Path], by: str) -> RunAlone:
        """Queue a run of the job, or find the one there is. `files`: the databases by name. Raises PondkeeperError."""
        job = with_database(job_named(load_jobs(settings.file or home.settings_file), name), files)
        run = RunAlone(home, settings, job)
        try:
            run.run_id = run._ask(file_of(job, files), by)
        except OSError as error:
            raise unwritable(error) from error
        return run

    def _ask(self, file: Path | None, by: str) -> str:
        folder = self._home.job(self._job.name)
        make_folder(folder)
        lock = FlockFile(folder / "asking.lock")
        give_up_at = time.monotonic() + ASK_TIMEOUT_S
        while not lock.try_acquire() and time.monotonic() < give_up_at:
            time.sleep(LOOK_S)
        with lock:
            found = self._unfinished()
            return found or Launcher(self._home, self._settings).queue(self._job, file, "manual", by).run_id

    def _unfinished(self) -> str | None:
        for run_id in runs_of(self._home.root):
            status = read_status(self._home.root, run_id)
            if status is not None and status.job == self._job.name and not status.is_final:
                return run_id
        return None

    def carry_out(self, on_look: Callable[[RunStatus], None] = lambda status: None) -> RunStatus:
        """Stay with the run until it has ended for good, attempts and pauses between them included; how it ended.

        `on_look` is called ten times a second. An interrupt (Ctrl-C) cancels the run; a second one leaves it to itself.
        """
        try:
            status = self._until_end(on_look)
        except KeyboardInterrupt:
            self.cancel("Ctrl-C")
            status = self._until_end(on_look)
        self._record(status)
        return status

    def cancel(self, by: str) -> None:
        """Have the run end."""
        cancel_run(self._home.root, self.run_id, by)

    def _until_end(self, on_look: Callable[[RunStatus], None]) -> RunStatus:
        paths = self._home.run(self.run_id)
        while True:
            status = status_in(paths.status_json)
            if status is None:
                raise RunNotFound
            on_look(status)
            if status.is_final:
                return status
            if is_flocked(self._home.keeper_lock) or is_flocked(paths.lock):
                time.sleep(LOOK_S)
            elif status.phase is not Phase.QUEUED:
                settle_lost(paths)
            elif status.not_before is not None and status.not_before > time.time():
                time.sleep(min(LOOK_S, max(0.0, status.not_before - time.time())))
            else:
                self._attempt(on_look)

    def _attempt(self, on_look: Callable[[RunStatus], None]) -> None:
        paths = self._home.run(self.run_id)
        process = start_supervisor(paths)
        try:
            while process.poll() is None:
                if (status := status_in(paths.status_json)) is not None:
                    on_look(status)
                with suppress(TimeoutExpired):
                    process.wait(LOOK_S)
        finally:
            if process.returncode is None:
                process.returncode = 0  # Why: it outlives us on purpose, which subprocess would warn of.

    def _record(self, status: RunStatus) -> None:
        paths = self._home.run(self.run_id)
        if not paths.recorded.exists() and not is_flocked(self._home.keeper_lock):
            keep_s = self._settings.runs.keep_s
            record_now(self._home, status, end_of_log(paths.log), self._job.notify, keep_s)
            mark_recorded(paths)
            deliver_now(self._home, self._job)
        prune(self._home, self._settings.runs)

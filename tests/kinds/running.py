"""Runs of jobs for tests, as they are: a folder, a supervisor in a process of its own, the work as its child."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.files.paths import Home, RunPaths, default_home
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.kinds_settings import KINDS
from pondkeeper.jobs.launching import Launcher
from pondkeeper.jobs.status import RunStatus, status_in
from pondkeeper.settings import Settings
from tests.support.keeper import program_environment

RUN_TIMEOUT_S = 240.0  # Why that long: two lanes of CI share two cores, and dbt alone takes seconds to be loaded


@dataclass
class Started:
    """A run that goes on."""

    paths: RunPaths
    process: subprocess.Popen[bytes]

    def status(self) -> RunStatus:
        found = status_in(self.paths.status_json)
        assert found is not None
        return found

    def log(self) -> str:
        return self.paths.log.read_text() if self.paths.log.exists() else ""

    def ended(self) -> RunStatus:
        """Its status at the end."""
        self.process.wait(RUN_TIMEOUT_S)
        return self.status()


def start_job(database: Path, kind: str, *, name: str = "shop", **settings: Any) -> Started:
    """Queue a run of a job of this kind, and start its supervisor, in the folder of the database."""
    home = Home(default_home(database))
    launcher = Launcher(home, Settings.load(home.settings_file, environment={}))
    job = Job(name=name, kind=kind, database=database.stem, settings=msgspec.convert(settings, KINDS[kind]))
    queued = launcher.queue(job, database, "manual")
    paths = home.run(queued.run_id)
    command = [sys.executable, "-P", "-m", "pondkeeper.kinds.supervisor", str(paths.folder)]
    environment = program_environment(PONDKEEPER_RUN=paths.run_id)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    return Started(paths, process)


@contextlib.contextmanager
def job_running(database: Path, kind: str, *, name: str = "shop", **settings: Any) -> Iterator[Started]:
    """A run that does not outlive the block."""
    started = start_job(database, kind, name=name, **settings)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.process.pid, 9)
        started.process.wait()


def run_job(database: Path, kind: str, *, name: str = "shop", **settings: Any) -> Started:
    """Run a job of this kind to its end."""
    with job_running(database, kind, name=name, **settings) as started:
        started.process.wait(RUN_TIMEOUT_S)
    return started

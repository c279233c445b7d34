"""Runs of commands without a database, for tests of the supervisor: queued in a home of their own, and ended at last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pondkeeper.files.paths import Home, RunPaths
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.kinds_settings import CommandSettings
from pondkeeper.jobs.launching import Launcher
from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import RunStatus, status_in
from pondkeeper.settings import Settings
from tests.support.keeper import program_environment, wait_until
from tests.support.processes import is_alive

ENDED_TIMEOUT_S = 60.0


class Run:
    """A queued run of a command, and the supervisors that carry it out."""

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self.supervisor: subprocess.Popen[bytes] | None = None

    def start(self, *, keeper_fd: int | None = None, **environment: str) -> Run:
        """Start its supervisor, as `start_supervisor` does, with the checkout importable."""
        command = [sys.executable, "-P", "-m", "pondkeeper.kinds.supervisor", str(self.paths.folder)]
        self.supervisor = subprocess.Popen(
            command if keeper_fd is None else [*command, str(keeper_fd)],
            stdin=subprocess.DEVNULL,
            env=program_environment(PONDKEEPER_RUN=self.paths.run_id, **environment),
            start_new_session=True,
            pass_fds=() if keeper_fd is None else (keeper_fd,),
        )
        return self

    def code(self) -> int:
        """Wait for the supervisor; its exit code."""
        assert self.supervisor is not None
        return self.supervisor.wait(ENDED_TIMEOUT_S)

    def ended(self) -> RunStatus:
        """Wait for the supervisor; the status that it leaves."""
        assert self.code() == 0, self.log()
        return self.status()

    def status(self) -> RunStatus:
        found = status_in(self.paths.status_json)
        assert found is not None
        return found

    def log(self) -> str:
        return self.paths.log.read_text() if self.paths.log.exists() else ""

    def said(self, text: str) -> int:
        """Wait until the run says `TEXT NUMBER`; the number."""
        line = wait_until(lambda: next((line for line in self.log().splitlines() if f"Z {text} " in line), None), what=text)
        return int(line.rpartition(" ")[2])

    def signal(self, number: signal.Signals) -> None:
        assert self.supervisor is not None
        self.supervisor.send_signal(number)


class Bench:
    """A home, and the runs that were made in it."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / ".pondkeeper")
        self.home.root.mkdir(parents=True)
        self.runs: list[Run] = []

    def run(self, *command: str, settings: dict[str, Any] | None = None, bounds: dict[str, Any] | None = None, **job: Any) -> Run:
        """A queued run of this command; `job`: what its job says more, `bounds`: the settings [runs]."""
        made = Job("work", "command", None, CommandSettings(command=command, **settings or {}), **job)
        flags = {f"runs.{name}": value for name, value in (bounds or {}).items()}
        launcher = Launcher(self.home, Settings.load(self.home.settings_file, environment={}, flags=flags))
        run = Run(self.home.run(launcher.queue(made, None, "manual").run_id))
        self.runs.append(run)
        return run

    def script(self, text: str, **options: Any) -> Run:
        """A run of a shell script."""
        return self.run("sh", "-c", text, **options)

    def python(self, text: str, **options: Any) -> Run:
        """A run of a Python script."""
        return self.run(sys.executable, "-S", "-c", text, **options)

    def dispose(self) -> None:
        """Leave nothing behind, whatever a test has found."""
        for run in self.runs:
            if run.supervisor is not None:
                run.supervisor.kill()
                run.supervisor.wait()
            end_orphans(run.paths.run_id)


def all_gone(pids: Sequence[int]) -> bool:
    """Whether none of these processes lives any more."""
    return not any(is_alive(pid) for pid in pids)


def write_end_closed() -> int:
    """The reading end of a pipe whose other end is closed, as the kernel leaves it when a keeper dies."""
    ours, theirs = os.pipe()
    os.close(theirs)
    return ours

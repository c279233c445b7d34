"""A desk of jobs that starts nothing: runs are folders, as real ones are, and tests write into them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pondkeeper.errors import PondkeeperError, RunNotFound
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import Home
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.describing import describe_job
from pondkeeper.jobs.folders import log_file, new_run_id, paths_of, read_status, runs_of
from pondkeeper.jobs.kinds_settings.command import CommandSettings
from pondkeeper.jobs.status import FINAL, Phase, RunStatus, status_json, write_status


class Desk:
    """What the routes ask of the real one."""

    problem: PondkeeperError | None = None

    def __init__(self, folder: Path, *jobs: tuple[str, str | None]) -> None:
        self.home = Home(folder)
        self.off: set[str] = set()
        self.accepted: list[str] = []
        settings = CommandSettings(command=("/secret/place/program",))
        self._jobs = {name: Job(name, "command", database, settings) for name, database in jobs}
        self.asked_by: list[str] = []
        self.remembered: dict[str, dict[str, Any]] = {}  # runs that have no folder any more

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def find(self, name: str) -> Job | None:
        return self._jobs.get(name)

    async def describe(self, name: str, *, with_settings: bool = False) -> dict[str, Any]:
        runs = await self.runs(job=name)
        current = next((each for each in runs if each["phase"] not in FINAL), None)
        last = next((each for each in runs if each["phase"] in FINAL), None)
        return describe_job(
            self._jobs[name], is_enabled=name not in self.off, next_due_at=None, current=current, last=last, with_settings=with_settings
        )

    async def trigger(self, name: str, *, trigger: str, by: str) -> dict[str, Any]:
        self.asked_by.append(by)
        for each in await self.runs(job=name):
            if each["phase"] == Phase.QUEUED:
                return each
        return status_json(self.make(name, Phase.QUEUED, trigger=trigger))

    async def run(self, run_id: str) -> dict[str, Any]:
        status = read_status(self.home.root, run_id)
        if status is None and run_id in self.remembered:
            return dict(self.remembered[run_id])
        if status is None:
            raise RunNotFound
        return status_json(status)

    async def runs(self, job: str | None = None, limit: int = 100, before: str | None = None) -> list[dict[str, Any]]:
        found = [await self.run(run_id) for run_id in runs_of(self.home.root) if before is None or run_id < before]
        return [each for each in found if job is None or each["job"] == job][:limit]

    async def cancel(self, run_id: str, *, by: str) -> dict[str, Any]:
        self.change(run_id, phase=Phase.CANCELLED)
        return await self.run(run_id)

    async def enable(self, name: str, enabled: bool) -> None:
        (self.off.discard if enabled else self.off.add)(name)

    async def accept_drift(self, name: str) -> list[dict[str, Any]]:
        self.accepted.append(name)
        return [{"digest": "d", "table": "main.t", "changes": ["new column c"], "asked_at": 1.0}]

    def log_file(self, run_id: str) -> Path:
        return log_file(self.home.root, run_id)

    # What tests do in the place of a run

    def make(self, job: str, phase: Phase = Phase.RUNNING, *, trigger: str = "manual", **values: Any) -> RunStatus:
        """A run in this phase."""
        status = RunStatus(
            new_run_id(), job, "command", self._jobs[job].database, phase, attempt=1, trigger=trigger, created_at=time.time(), **values
        )
        make_folder(paths_of(self.home.root, status.run_id).folder)
        write_status(paths_of(self.home.root, status.run_id).status_json, status, durable=False)
        return status

    def change(self, run_id: str, **values: Any) -> None:
        """The run gets on."""
        status = read_status(self.home.root, run_id)
        assert status is not None
        for name, value in values.items():
            setattr(status, name, value)
        write_status(paths_of(self.home.root, run_id).status_json, status, durable=False)

    def write(self, run_id: str, text: str) -> None:
        """The run writes into its log."""
        with self.log_file(run_id).open("a") as log:
            log.write(text)

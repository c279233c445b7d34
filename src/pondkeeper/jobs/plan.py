"""What a run is to do: `plan.json` of its folder, written before anything of it starts, and never changed by the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from pondkeeper.errors import JobInvalid
from pondkeeper.files.durable import write_atomic
from pondkeeper.jobs.definition import Job, Notify, Schedule
from pondkeeper.jobs.kinds_settings import KINDS

TRIGGERS: Final = ("manual", "schedule", "after", "retry", "resumed")


@dataclass(frozen=True, slots=True)
class RunBounds:
    """What the keeper's settings allow a run."""

    kill_after_s: float = 10.0
    max_log_bytes: int = 64 * 1024 * 1024
    staging_limit_bytes: int = 64 * 1024**3


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One attempt of a run. `trigger`: manual, schedule, after, retry or resumed; `created_at`: when the run was asked
    for, in seconds since 1970.

    `database_file` of a job without a database is `Path()`. `home` is the folder `.pondkeeper`, `folder` the run's own,
    `workdir` where programs start: beside the settings file, or beside the home where that is in it.
    """

    run_id: str
    job: Job
    attempt: int
    trigger: str
    database_file: Path
    home: Path
    folder: Path
    created_at: float
    workdir: Path = Path()
    bounds: RunBounds = RunBounds()

    @property
    def has_database(self) -> bool:
        """Whether the job belongs to a database."""
        return self.job.database is not None


def plan_json(plan: RunPlan) -> dict[str, Any]:
    """The plan as plain data."""
    data: dict[str, Any] = msgspec.to_builtins(plan, enc_hook=str)
    return data


def plan_of(data: dict[str, Any]) -> RunPlan:
    """The plan that `plan_json` described. Raises JobInvalid when its job is of no known kind, or not as that wants it."""
    try:
        job = dict(data["job"])
        given = job | {
            "settings": msgspec.convert(job["settings"], KINDS[job["kind"]]),
            "schedule": msgspec.convert(job.get("schedule"), Schedule | None),
            "notify": msgspec.convert(job.get("notify"), Notify | None),
            "after": tuple(job.get("after", ())),
        }
        paths = {name: Path(data[name]) for name in ("database_file", "home", "folder", "workdir")}
        return RunPlan(**data | paths | {"job": Job(**given), "bounds": RunBounds(**data["bounds"])})
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        message = "The plan of the run is not one that this release of Pondkeeper understands."
        raise JobInvalid(message, private=str(error)) from error


def write_plan(file: Path, plan: RunPlan) -> None:
    """Write the plan, durably."""
    write_atomic(file, json.dumps(plan_json(plan)).encode())


def read_plan(file: Path) -> RunPlan:
    """The plan in the file. Raises JobInvalid when it is none."""
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise JobInvalid("The run has no plan that could be read.", private=str(error)) from error
    folder = file.parent
    return plan_of(data | {"folder": str(folder), "home": str(folder.parent.parent)})  # a home may have been moved

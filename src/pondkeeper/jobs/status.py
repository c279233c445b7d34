"""What is known of a run while it goes on and afterwards: `status.json` of its folder, replaced in one step each time."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pondkeeper.files.durable import write_atomic, write_volatile


class Phase(StrEnum):
    """What a run is at."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    EXTRACTING = "extracting"
    WAITING = "waiting_for_lease"
    LOADING = "loading"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({Phase.DONE, Phase.FAILED, Phase.CANCELLED})


@dataclass(slots=True)
class RunStatus:
    """A run as it stands. Moments (`…_at`, `not_before`) are seconds since 1970; a final `phase`: nothing of it runs any more.

    `attempt` counts from 1. `failures`: attempts that failed so far. `not_before`: a queued attempt waits until then.
    `pid` and `pid_started_at` (in ticks of the kernel) are the supervisor's, and name it only together.
    """

    run_id: str
    job: str
    kind: str
    database: str | None
    phase: Phase
    attempt: int
    trigger: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float | None = None
    pid: int | None = None
    pid_started_at: int | None = None
    done: int = 0
    total: int | None = None
    unit: str = "rows"
    rate_per_s: float | None = None
    eta_s: float | None = None
    message: str = ""
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: int = 0
    size_bytes: int = 0
    versions: list[int] = field(default_factory=list)
    held_s: float = 0.0
    lease: dict[str, Any] | None = None
    exit_code: int | None = None
    error: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    failures: int = 0
    not_before: float | None = None
    by: str | None = None
    priority: str = "background"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended for good."""
        return self.phase in FINAL


FIELDS: Final = tuple(each.name for each in dataclasses.fields(RunStatus))
MOMENTS: Final = ("created_at", "started_at", "finished_at", "updated_at", "not_before")


def status_json(status: RunStatus) -> dict[str, Any]:
    """The status as plain data, its moments in ISO 8601 (UTC): the one shape of file, HTTP and command line."""
    moments = {name: iso(getattr(status, name)) for name in MOMENTS}
    return dataclasses.asdict(status) | moments | {"phase": status.phase.value}


def status_of(data: dict[str, Any]) -> RunStatus:
    """The status that `status_json` described; what a later version has added is left out."""
    known = {name: data[name] for name in FIELDS if name in data}
    moments = {name: seconds(known[name]) for name in MOMENTS if name in known}
    return RunStatus(**known | moments | {"phase": Phase(data["phase"])})


def iso(moment: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def seconds(moment: str | None) -> float | None:
    """What `iso` wrote, as seconds since 1970."""
    return None if moment is None else datetime.fromisoformat(moment).timestamp()


def write_status(file: Path, status: RunStatus, *, durable: bool) -> None:
    """Replace the file; `durable` for what must be known after a power cut: that a run is queued, and how it ended."""
    data = json.dumps(status_json(status), default=str).encode()
    if durable:
        write_atomic(file, data)
    else:
        write_volatile(file, data)


def status_in(file: Path) -> RunStatus | None:
    """The status in the file; None when there is none that could be read."""
    try:
        return status_of(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""What a job is. The loader makes these from `[jobs.NAME]` of the settings file; who has one need not check it again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

INTERACTIVE: Final = "interactive"
NORMAL: Final = "normal"
BACKGROUND: Final = "background"
PRIORITIES: Final = (INTERACTIVE, NORMAL, BACKGROUND)

ONCE: Final = "once"
SKIP: Final = "skip"
MISSED: Final = (ONCE, SKIP)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is due: cron, `@hourly`, `every 30s` or `always`, as it was written, and the time zone it is meant in."""

    text: str
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Notify:
    """Whom to tell (a webhook), of what, and from which age on data is stale. `secret` signs what is sent."""

    url: str
    on: tuple[str, ...] = ("failure", "recovery", "stale")
    stale_after_s: float | None = None
    remind_s: float | None = None
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A configured piece of work. `settings` is the frozen dataclass of its kind; `line` is where it stands in the file."""

    name: str
    kind: str
    database: str | None
    settings: Any
    schedule: Schedule | None = None
    after: tuple[str, ...] = ()
    timeout_s: float | None = None
    retries: int = 0
    retry_wait_s: float = 10.0
    priority: str = BACKGROUND
    notify: Notify | None = None
    missed: str = ONCE
    enabled: bool = True
    line: int = 0


def by_name(jobs: Iterable[Job]) -> dict[str, Job]:
    """The jobs by their names."""
    return {job.name: job for job in jobs}

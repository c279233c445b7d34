"""A job as it is shown: the one shape of HTTP and of the command line, with a keeper and without one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pondkeeper.jobs.definition import Job

BRIEF: Final = ("run_id", "phase", "trigger", "attempt", "created_at", "started_at", "finished_at", "rows", "error")


def describe_job(
    job: Job,
    *,
    is_enabled: bool,
    next_due_at: str | None,
    current: dict[str, Any] | None,
    last: dict[str, Any] | None,
    with_settings: bool,
) -> dict[str, Any]:
    """The job; its `current` run that waits or goes on, and the `last` one that has ended, as `status_json` has them.

    `with_settings`: also what its kind is told, and whom it notifies, which may name hosts and paths.
    """
    shown: dict[str, Any] = {
        "name": job.name,
        "kind": job.kind,
        "database": job.database,
        "is_enabled": is_enabled,
        "schedule": None if job.schedule is None else job.schedule.text,
        "timezone": None if job.schedule is None else job.schedule.timezone,
        "next_due_at": next_due_at,
        "after": list(job.after),
        "missed": job.missed,
        "priority": job.priority,
        "timeout_s": job.timeout_s,
        "retries": job.retries,
        "retry_wait_s": job.retry_wait_s,
        "current": None if current is None else brief(current),
        "last": None if last is None else brief(last),
    }
    if with_settings:
        shown["settings"] = dataclasses.asdict(job.settings)
        shown["notify"] = None if job.notify is None else dataclasses.asdict(job.notify)
    return shown


def brief(status: dict[str, Any]) -> dict[str, Any]:
    """A run in a few words, as part of its job."""
    return {name: status[name] for name in BRIEF}

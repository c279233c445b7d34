"""What is due, judged from what is known: no clock, no waiting, no control.db. `clock.JobClock` acts on it."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.jobs.definition import ONCE, Job, Schedule
from pondkeeper.jobs.schedules import ALWAYS, next_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pondkeeper.jobs.records import Mark, Totals

LATE_S: Final = 60.0
"""A time of a schedule that passed longer ago was missed."""
CLOCK_WENT_BACK_S: Final = 60.0
PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 600.0
OFF: Final = ""


class Verdict(Enum):
    """What becomes of a time of a schedule that has passed."""

    NOT_DUE = 0
    RUN = 1
    SKIP = 2


def settled(job: Job, mark: Mark, now: float, *, is_enabled: bool) -> dict[str, Any]:
    """What has to change in the mark before it can be judged: a job that is new, switched on or off, of another schedule.

    `since_seq=...` stands for: up to now.
    """
    written = _written(job) if is_enabled else OFF
    if mark.schedule == written:
        is_ahead = mark.handled_until is not None and mark.handled_until > now + CLOCK_WENT_BACK_S
        return {"handled_until": now} if is_ahead else {}
    changes: dict[str, Any] = {"schedule": written, "handled_until": now}
    if mark.schedule == OFF:
        changes["since_seq"] = ...  # Why: what succeeded while the job was switched off does not start it now.
    return changes


def by_schedule(job: Job, mark: Mark, now: float) -> Verdict:
    """Whether a time of its schedule has come since the last look, and whether it was missed."""
    due_at = next_due_at(job, mark)
    if due_at is None or due_at > now or job.schedule is None:
        return Verdict.NOT_DUE
    if job.missed == ONCE:
        return Verdict.RUN
    newest = next_after(job.schedule, now - LATE_S)
    return Verdict.RUN if newest is not None and newest <= now else Verdict.SKIP


def next_due_at(job: Job, mark: Mark) -> float | None:
    """The next time of its schedule that is not dealt with; None without one."""
    if job.schedule is None or mark.handled_until is None:
        return None
    return _next_after(job.schedule, mark.handled_until)


@lru_cache(maxsize=4096)
def _next_after(schedule: Schedule, moment: float) -> float | None:
    """As `next_after`, worked out once: the clock asks every two seconds, and mostly for the same."""
    return next_after(schedule, moment)


def is_always(job: Job) -> bool:
    """Whether it is due again as soon as it has ended."""
    return job.schedule is not None and job.schedule.text == ALWAYS


def pause_s(job: Job, totals: Totals | None) -> float:
    """How long a job that always runs rests: a moment, and longer the more often it has failed in a row."""
    failures = totals.in_a_row if totals else 0
    if not failures:
        return PAUSE_S
    return min(MOST_PAUSE_S, max(PAUSE_S, job.retry_wait_s) * 2.0 ** min(failures - 1, 20))


def by_others(job: Job, totals: Mapping[str, Totals], mark: Mark) -> int | None:
    """Up to which success of the jobs before it a run of this one is due; None when it is not.

    Each of them must have succeeded since it last ran because of them, was made known, or was switched on.
    """
    if not job.after:
        return None
    successes = [totals[name].success_seq if name in totals else 0 for name in job.after]
    return max(successes) if min(successes) > max(mark.after_seq, mark.since_seq) else None


def _written(job: Job) -> str:
    """By what a changed schedule is known as such."""
    return f"{job.schedule.text} {job.schedule.timezone}" if job.schedule else "none"

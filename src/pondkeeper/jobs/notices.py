"""Which notices the end of a run gives, or data that has grown old. Pure: told what was before and is now, it says what to tell."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pondkeeper.jobs.job_keys import FAILURE, RECOVERY, STALE
from pondkeeper.jobs.status import Phase, RunStatus, status_json

if TYPE_CHECKING:
    from pondkeeper.jobs.definition import Job, Notify
    from pondkeeper.jobs.records import Mark, Totals

LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell of a job. `body` is what the webhook gets."""

    job: str
    body: dict[str, Any]


def notices_of(
    status: RunStatus, log_end: str, notify: Notify | None, before: Totals, after: Totals, mark: Mark, now: float
) -> tuple[Mark, list[Notice]]:
    """What the end of a run gives to tell, and the mark that says that it is told."""
    if status.phase is Phase.DONE:
        return _of_success(status, notify, before, mark, now)
    if status.phase is Phase.FAILED and notify is not None and FAILURE in notify.on and _is_due(notify, mark, now):
        body = _body(FAILURE, status.job, _failure_text(status, after), now)
        body |= {"run": status_json(status), "log_end": "\n".join(log_end.splitlines()[-LOG_LINES:]), "in_a_row": after.in_a_row}
        return dataclasses.replace(mark, told_at=now), [Notice(status.job, body)]
    return mark, []


def stale_notice(job: Job, totals: Totals | None, mark: Mark, now: float) -> list[Notice] | None:
    """What is to be told when the data of a job has grown older than its bound; None while it has not, or is known to have."""
    notify = job.notify
    if notify is None or notify.stale_after_s is None or mark.stale_since is not None:
        return None
    success_at = totals.success_at if totals else None
    age_s = now - (success_at if success_at is not None else mark.since)
    if age_s <= notify.stale_after_s:
        return None
    if STALE not in notify.on:
        return []
    since = f"the last success was {_ago(age_s)} ago" if success_at else f"it has had no success for {_ago(age_s)}"
    body = _body(STALE, job.name, f"The data of job {job.name} is stale: {since}, and {_ago(notify.stale_after_s)} is the bound.", now)
    body |= {"last_success_at": _iso(success_at), "age_s": round(age_s, 3), "stale_after_s": notify.stale_after_s}
    return [Notice(job.name, body)]


def _of_success(
    status: RunStatus, notify: Notify | None, before: Totals, mark: Mark, now: float
) -> tuple[Mark, list[Notice]]:
    was_bad = before.in_a_row > 0 or mark.stale_since is not None
    mark = dataclasses.replace(mark, told_at=None, stale_since=None)
    if notify is None or RECOVERY not in notify.on or not was_bad:
        return mark, []
    failed = f" after {before.in_a_row} failed in a row" if before.in_a_row else ""
    text = f"Job {status.job} has recovered: run {status.run_id} succeeded{failed}, with {status.rows:,} rows."
    body = _body(RECOVERY, status.job, text, now)
    return mark, [Notice(status.job, body | {"run": status_json(status), "failing_since": _iso(before.failing_since)})]


def _is_due(notify: Notify, mark: Mark, now: float) -> bool:
    """The first failure is told, and after that one every so often: not each run of a bad night."""
    return mark.told_at is None or (notify.remind_s is not None and now - mark.told_at >= notify.remind_s)


def _failure_text(status: RunStatus, after: Totals) -> str:
    error = status.error or {}
    what = f"{error.get('message', 'it says not why')} ({error.get('code', 'unknown')})"
    again = f" For the {_nth(after.in_a_row)} time in a row." if after.in_a_row > 1 else ""
    return f"Job {status.job} failed: {what} Run {status.run_id}, attempt {status.attempt}.{again}"


def _nth(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _body(occasion: str, job: str, text: str, now: float) -> dict[str, Any]:
    return {"occasion": occasion, "job": job, "text": text, "at": _iso(now)}


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _ago(seconds: float) -> str:
    """A length of time for people: `26 h`, `45 min`, `30 s`."""
    for unit, length_s in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"

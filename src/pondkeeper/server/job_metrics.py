"""The metrics of jobs: read from memory at each scrape, from totals that outlive retention and restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pondkeeper.jobs.records import Totals

if TYPE_CHECKING:
    from prometheus_client import Metric

    from pondkeeper.jobs.definition import Job
    from pondkeeper.jobs.desk import JobsDesk

OUTCOMES: Final = ("done", "failed", "cancelled")


class JobCollector:
    """What is known of the jobs that stand in the settings file now."""

    def __init__(self, desk: JobsDesk, now: Callable[[], float] = time.time) -> None:
        self._desk = desk
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        lineup = self._desk.carrier.lineup
        yield _one("pondkeeper_jobs_file_good", "0 while the jobs in the settings file are broken; the old ones stand.", float(self._desk.problem is None))
        runs = GaugeMetricFamily("pondkeeper_runs", "Runs that wait and that go on.", labels=["state"])
        runs.add_metric(["queued"], len(lineup.queued))
        runs.add_metric(["running"], len(lineup.running))
        yield runs
        jobs = self._desk.book.jobs()
        totals = {job.name: self._desk.history.totals.get(job.name, Totals(job.name)) for job in jobs}
        for name, help_, kind, value in _OF_TOTALS:
            family = kind(name, help_, labels=["job"])
            for job in jobs:
                if (number := value(totals[job.name])) is not None:
                    family.add_metric([job.name], number)
            yield family
        yield _by_outcome(totals)
        yield from self._of_jobs(jobs, totals)
        yield self._gauges()

    def _of_jobs(self, jobs: list[Job], totals: dict[str, Totals]) -> Iterator[Metric]:
        enabled = GaugeMetricFamily("pondkeeper_job_enabled", "1 while the job may start by itself.", labels=["job"])
        age = GaugeMetricFamily(
            "pondkeeper_job_age_seconds", "Since the last success; of a job without one, since it is known.", labels=["job"]
        )
        stale = GaugeMetricFamily("pondkeeper_job_stale", "1 while that is more than `notify.stale_after`.", labels=["job"])
        due = GaugeMetricFamily("pondkeeper_job_next_timestamp_seconds", "When its schedule comes next.", labels=["job"])
        for job in jobs:
            mark, success_at = self._desk.history.marks.get(job.name), totals[job.name].success_at
            enabled.add_metric([job.name], float(self._desk.book.is_enabled(job)))
            since = success_at if success_at is not None else mark.since if mark else None
            if since is not None:
                age.add_metric([job.name], max(0.0, self._now() - since))
            if job.notify is not None and job.notify.stale_after_s is not None and mark is not None:
                stale.add_metric([job.name], float(mark.stale_since is not None))
            if (due_at := self._desk.clock.next_due_at(job)) is not None:
                due.add_metric([job.name], due_at)
        yield from (enabled, age, stale, due)

    def _gauges(self) -> Metric:
        """Numbers that a kind gives of a run while it goes on, such as how far behind its source it is."""
        family = GaugeMetricFamily("pondkeeper_job_gauge", "Numbers of a run that goes on, by its kind.", labels=["job", "name"])
        for status in self._desk.carrier.lineup.running:
            gauges = status.details.get("gauges")
            for name, value in gauges.items() if isinstance(gauges, dict) else ():
                if isinstance(value, int | float):
                    family.add_metric([status.job, str(name)], float(value))
        return family


def _one(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value)


def _by_outcome(totals: dict[str, Totals]) -> Metric:
    family = CounterMetricFamily("pondkeeper_job_runs", "Runs that have ended.", labels=["job", "outcome"])
    for job, found in totals.items():
        for outcome in OUTCOMES:
            family.add_metric([job, outcome], getattr(found, outcome))
    return family


# Each: name, help, kind, the number of a job's totals; none where that is None.
_OF_TOTALS: Final[tuple[tuple[str, str, Any, Callable[[Totals], float | None]], ...]] = (
    ("pondkeeper_job_last_success_timestamp_seconds", "When a run last succeeded.", GaugeMetricFamily, lambda of: of.success_at),
    ("pondkeeper_job_last_duration_seconds", "How long the last run took.", GaugeMetricFamily, lambda of: of.last_duration_s),
    ("pondkeeper_job_last_rows", "Rows of the last run.", GaugeMetricFamily, lambda of: of.last_rows),
    ("pondkeeper_job_failed_in_a_row", "Runs that failed since the last success.", GaugeMetricFamily, lambda of: of.in_a_row),
    ("pondkeeper_job_running_seconds", "Time of all runs.", CounterMetricFamily, lambda of: of.running_s),
    ("pondkeeper_job_held_seconds", "For how long all runs held the database.", CounterMetricFamily, lambda of: of.held_s),
    ("pondkeeper_job_rows", "Rows of all runs that succeeded.", CounterMetricFamily, lambda of: of.rows),
    ("pondkeeper_job_bytes", "Bytes of all runs that succeeded.", CounterMetricFamily, lambda of: of.size_bytes),
)  # fmt: skip

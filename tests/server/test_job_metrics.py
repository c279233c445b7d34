"""What a scrape says of jobs: from totals, marks and the book, and of what runs right now."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from pondkeeper.files.paths import Home
from pondkeeper.jobs.desk import JobsDesk
from pondkeeper.jobs.status import Phase
from pondkeeper.server.job_metrics import JobCollector
from pondkeeper.settings import Settings
from tests.jobs.ended import ended

JOBS = """
[jobs.sync]
kind = "command"
command = ["x"]
schedule = "@hourly"
notify = { url = "env:HOOK", stale_after = "1h" }
[jobs.never]
kind = "command"
command = ["x"]
enabled = false
"""


async def test_a_scrape_says_how_each_job_does(tmp_path: Path) -> None:
    """Last success, age, duration, rows, failures; nothing of jobs that are gone; gauges of runs that go on."""
    file = tmp_path / "pondkeeper.toml"
    file.write_text(JOBS)
    desk = await JobsDesk.open(Home(tmp_path / "home"), Settings.load(file, environment={}), dict, lambda *_, **__: None)
    try:
        now = time.time()
        for job, phase, rows in (("sync", Phase.DONE, 7), ("sync", Phase.FAILED, 0), ("sync", Phase.FAILED, 0), ("gone", Phase.DONE, 1)):
            await desk.history.record(ended(job, phase, at=now - 100, took_s=2.5, rows=rows, held_s=0.5), "")
        await desk.clock.look()
        desk.carrier.lineup.begin(ended("never", Phase.LOADING, details={"gauges": {"lag_s": 1.5, "text": "no"}}))
        registry = CollectorRegistry()
        registry.register(JobCollector(desk))
        lines = generate_latest(registry).decode().splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    finally:
        await desk.stop()

    assert found['pondkeeper_job_runs_total{job="sync",outcome="done"}'] == "1.0"
    assert found['pondkeeper_job_runs_total{job="sync",outcome="failed"}'] == "2.0"
    assert found['pondkeeper_job_failed_in_a_row{job="sync"}'] == "2.0"
    assert found['pondkeeper_job_rows_total{job="sync"}'] == "7.0"
    assert found['pondkeeper_job_running_seconds_total{job="sync"}'] == "7.5"
    assert found['pondkeeper_job_held_seconds_total{job="sync"}'] == "1.5"
    assert found['pondkeeper_job_last_duration_seconds{job="sync"}'] == "2.5"
    assert 100 <= float(found['pondkeeper_job_age_seconds{job="sync"}']) < 1000
    assert 0 <= float(found['pondkeeper_job_age_seconds{job="never"}']) < 900
    assert float(found['pondkeeper_job_next_timestamp_seconds{job="sync"}']) > now
    assert found['pondkeeper_job_stale{job="sync"}'] == "0.0"
    assert (found['pondkeeper_job_enabled{job="sync"}'], found['pondkeeper_job_enabled{job="never"}']) == ("1.0", "0.0")
    assert found['pondkeeper_job_gauge{job="never",name="lag_s"}'] == "1.5"
    assert found['pondkeeper_runs{state="running"}'] == "1.0"
    assert found["pondkeeper_jobs_file_good"] == "1.0"
    assert 'pondkeeper_job_next_timestamp_seconds{job="never"}' not in found
    assert not [name for name in found if "gone" in name or '"text"' in name]

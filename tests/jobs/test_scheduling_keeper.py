"""A real keeper with a settings file: schedules, one job after the other, webhooks, mistakes, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hook import Hook
from tests.support.keeper import KeeperProcess, pondkeeper, wait_until

TOML = """
[jobs.tick]
kind = "command"
command = ["true"]
schedule = "every 1s"

[jobs.next]
kind = "command"
command = ["true"]
after = ["tick"]

[jobs.bad]
kind = "command"
command = ["sh", "-c", "echo last words; test -e {mended}"]
schedule = "every 1s"
notify = "env:HOOK"
"""


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.close()


def write(keeper: KeeperProcess, text: str) -> None:
    """Replace the settings file in one step, as editors do."""
    temp = keeper.home.settings_file.with_suffix(".new")
    temp.write_text(text)
    temp.replace(keeper.home.settings_file)


def metric(keeper: KeeperProcess, name: str) -> float:
    with keeper.http() as client:
        lines = client.get("/metrics").text.splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), -1.0)


def done(keeper: KeeperProcess, job: str) -> float:
    return metric(keeper, f'pondkeeper_job_runs_total{{job="{job}",outcome="done"}}')


def runs(keeper: KeeperProcess, job: str) -> list[dict[str, Any]]:
    with keeper.http() as client:
        found: list[dict[str, Any]] = client.get("/v1/runs", params={"job": job}).json()["runs"]
    return found


@pytest.mark.fault
@pytest.mark.timeout(240)  # two starts of a keeper and some twelve runs of jobs
def test_a_keeper_keeps_its_schedules_through_mistakes_and_a_kill(tmp_path: Path, hook: Hook) -> None:
    """Jobs run by the clock and after each other; a broken file changes nothing; after kill -9 it goes on; hooks are told."""
    mended = tmp_path / "mended"
    keeper = KeeperProcess(tmp_path / "w.duckdb", environment={"HOOK": hook.url, "PONDKEEPER_LOG_LEVEL": "debug"})
    keeper.home.root.mkdir(mode=0o700)
    good = TOML.replace("{mended}", str(mended))
    write(keeper, good)
    with keeper:
        wait_until(lambda: done(keeper, "next") >= 1, what="the job after the one that the clock has started")
        wait_until(lambda: hook.told == [("failure", "bad")], what="the webhook of the failure")
        assert "last words" in hook.bodies[0]["log_end"]

        write(keeper, good.replace("every 1s", "evry 1s"))
        wait_until(lambda: metric(keeper, "pondkeeper_jobs_file_good") == 0.0, what="the mistake")
        before = done(keeper, "tick")
        wait_until(lambda: done(keeper, "tick") > before, what="a run by the old schedule")
        write(keeper, good.replace("[jobs.tick]", "[jobs.tock]").replace('"tick"', '"tock"'))
        os.kill(keeper.pid, signal.SIGHUP)
        wait_until(lambda: done(keeper, "tock") >= 1, what="the job that was renamed")
        assert metric(keeper, "pondkeeper_jobs_file_good") == 1.0
        assert pondkeeper("job", "disable", "tock", "--home", str(keeper.home.root)).returncode == 0
        wait_until(lambda: all(run["phase"] == "done" for run in runs(keeper, "tock")), what="the end of its last run")
        before = done(keeper, "tock")

        keeper.kill9()
        keeper.start()
        failed = metric(keeper, 'pondkeeper_job_runs_total{job="bad",outcome="failed"}')
        assert failed >= 1, "totals outlive the keeper"
        wait_until(lambda: metric(keeper, 'pondkeeper_job_runs_total{job="bad",outcome="failed"}') > failed, what="the schedule after the kill")
        assert hook.told == [("failure", "bad")], "the series goes on, and was told"
        mended.touch()
        wait_until(lambda: hook.told == [("failure", "bad"), ("recovery", "bad")], what="the webhook of the recovery")
        assert done(keeper, "tock") <= before + 1, "a job that was switched off stays so; one may have been on its way"
        listed = json.loads(pondkeeper("job", "history", "bad", "--json", "--home", str(keeper.home.root)).stdout)
        assert hook.url not in json.dumps(listed)
    assert "s3cret" not in keeper.log()


def test_a_keeper_does_not_start_on_a_broken_job(tmp_path: Path) -> None:
    """As with every other setting: exit code 2, with the line."""
    home = tmp_path / ".pondkeeper"
    home.mkdir(mode=0o700)
    (home / "pondkeeper.toml").write_text('[jobs.a]\nkind = "comand"\n')
    answer = pondkeeper("serve", str(tmp_path / "w.duckdb"), "--port", "0")

    assert answer.returncode == 2
    assert "pondkeeper.toml, line 2" in answer.stderr
    assert "did you mean 'command'" in answer.stderr

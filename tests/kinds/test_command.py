"""Jobs of the kind `command`: their folder and environment, their exit code, and the database to themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.jobs.status import Phase
from tests.kinds.running import job_running, run_job
from tests.support.keeper import KeeperProcess, wait_until


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with one table."""
    with KeeperProcess(tmp_path_factory.mktemp("command") / "shop.duckdb") as keeper:
        keeper.client().execute("CREATE TABLE sales AS SELECT 1 AS id")
        yield keeper


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


WRITE = "import duckdb, os; duckdb.connect(os.environ['PONDKEEPER_DATABASE']).execute('INSERT INTO sales VALUES (2)')"


def test_a_program_that_has_the_database_writes_and_is_published(keeper: KeeperProcess) -> None:
    """With the lease a program opens the file itself, beside a keeper that serves it; the version names what it wrote."""
    run = run_job(keeper.target, "command", command=python(WRITE), lease="whole")
    status = run.status()
    assert status.phase == Phase.DONE, run.log()
    assert keeper.client().query("SELECT count(*) FROM sales WHERE id = 2", at_least=status.versions[-1]).scalar() == 1
    assert 0 < status.held_s < status.finished_at - status.started_at  # type: ignore[operator]


def test_folder_environment_secret_and_exit_code(keeper: KeeperProcess, tmp_path: Path) -> None:
    """The program runs where it should, with what it should, its secret is not in the log, and its exit code is kept."""
    secret = tmp_path / "token"
    secret.write_text("sesame-17\n")
    command = ["sh", "-c", "pwd; echo $CITY; echo $TOKEN; test $TOKEN = sesame-17 && exit 7"]
    environment = {"CITY": "Oslo", "TOKEN": f"file:{secret}"}
    for lease in ("whole", "none"):
        run = run_job(keeper.target, "command", command=command, lease=lease, folder=str(tmp_path), environment=environment)
        assert (run.status().phase, run.status().exit_code) == (Phase.FAILED, 7)
        assert run.status().versions == []  # nothing was written, so there is nothing to publish
        assert str(tmp_path) in run.log()
        assert "Oslo" in run.log()
        assert "sesame-17" not in run.log()


def test_who_has_the_database_for_too_long_is_ended(keeper: KeeperProcess) -> None:
    """At the end of its time the program is ended with its children, and the next one has its turn."""
    run = run_job(keeper.target, "command", command=["sh", "-c", "sleep 600 & sleep 600"], lease="whole", max_hold_s=0.3)
    error = run.status().error
    assert error is not None
    assert error["code"] == "run_timed_out", run.log()
    began = time.monotonic()
    keeper.client().execute("INSERT INTO sales VALUES (3)")
    assert time.monotonic() - began < 60


@pytest.mark.fault
def test_the_lease_is_held_as_long_as_the_program_lives(keeper: KeeperProcess) -> None:
    """Who kills the processes of the run does not let the next writer in while the program still writes."""
    text = "import duckdb, os, time; c = duckdb.connect(os.environ['PONDKEEPER_DATABASE']); print('open', flush=True); time.sleep(600)"
    with job_running(keeper.target, "command", command=python(text), lease="whole") as run:
        wait_until(lambda: "open" in run.log(), what="the program with the file open")
        assert keeper.client().queue()["holder"]["who"] == "job shop"
        with pytest.raises(duckdb.IOException, match="lock"):  # positive control: the file is not to be had
            duckdb.connect(str(keeper.target))
        run.process.kill()
        run.process.wait()
    # The kernel ended the program with its supervisor; only then is the lease free, and the keeper writes again.
    keeper.client().execute("INSERT INTO sales VALUES (4)")

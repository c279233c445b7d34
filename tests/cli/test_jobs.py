"""`pondkeeper job` as a user types it: with a keeper, with one that is killed in the middle, and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.files.durable import make_folder
from pondkeeper.jobs.folders import is_alive, is_run_id, runs_of
from tests.support.keeper import KeeperProcess, command_line, pondkeeper, program_environment, wait_until

JOBS = r"""
[jobs.quick]
kind = "command"
command = ["sh", "-c", 'echo one; printf "two\t\033[31mred"']
schedule = "0 4 1 1 *"
timezone = "Europe/Berlin"

[jobs.fails]
kind = "command"
command = ["sh", "-c", "echo oh no >&2; exit 3"]

[jobs.waits]
kind = "command"
command = ["sh", "-c", "echo begun; until [ -e go ]; do sleep 0.05; done; echo went on"]
"""


def folder_with_jobs(folder: Path, jobs: str = JOBS) -> Path:
    """A folder whose keeper has these jobs; the database in it."""
    make_folder(folder / ".pondkeeper", durable=False)
    (folder / ".pondkeeper" / "pondkeeper.toml").write_text(jobs)
    return folder / "pond.duckdb"


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """One keeper with jobs for the tests here."""
    with KeeperProcess(folder_with_jobs(tmp_path_factory.mktemp("jobs"))) as running:
        yield running


@pytest.fixture
def going(keeper: KeeperProcess) -> Iterator[str]:
    """A run of `waits` that goes on; it has ended when the test has."""
    go = keeper.target.parent / "go"
    go.unlink(missing_ok=True)
    run = keeper.cli("job", "run", "waits").stdout.strip()
    wait_until(lambda: "begun" in keeper.cli("job", "logs", run).stdout)
    yield run
    go.touch()
    assert keeper.cli("job", "status", run, "--follow").returncode in (0, 5)


def keeper_job(keeper: KeeperProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return keeper.cli("job", *arguments)


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def in_background(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; killed at the end if it still does."""
    process = subprocess.Popen(
        command_line(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=program_environment(**environment)
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_what_one_asks_first(keeper: KeeperProcess) -> None:
    """What there is, when it is due, run it, see how it went."""
    listed = {job["name"]: job for job in said(keeper_job(keeper, "list", "--json"))["jobs"]}
    assert list(listed) == ["quick", "fails", "waits"]
    assert listed["quick"]["database"] == "pond"
    assert listed["quick"]["next_due_at"].endswith("-01-01T03:00:00.000+00:00")

    done = keeper_job(keeper, "run", "quick", "--wait")
    run = done.stdout.strip()
    assert (done.returncode, is_run_id(run)) == (0, True), done.stderr
    assert "quick is done" in done.stderr
    assert said(keeper_job(keeper, "status", run, "--json"))["exit_code"] == 0
    assert keeper_job(keeper, "status", "quick").stdout.startswith(f"run {run} of quick (command, pond): done")
    assert {"one", "two\t\x1b[31mred"} < {line.partition("Z ")[2] for line in keeper_job(keeper, "logs", run).stdout.splitlines()}
    assert run in keeper_job(keeper, "history", "quick").stdout
    assert said(keeper_job(keeper, "show", "quick", "--json"))["settings"]["command"][0] == "sh"
    assert "due: 0 4 1 1 * Europe/Berlin, next in" in keeper_job(keeper, "show", "quick").stdout


def test_a_run_that_failed_is_a_failure_of_who_waits(keeper: KeeperProcess) -> None:
    waited = keeper_job(keeper, "run", "fails", "--wait")
    followed = keeper_job(keeper, "run", "fails", "--follow")
    streamed = keeper_job(keeper, "run", "fails", "--follow", "--json")
    assert [done.returncode for done in (waited, followed, streamed)] == [11, 11, 11]
    assert "error [run_failed]" in waited.stderr
    assert "oh no" in followed.stderr
    assert "oh no" not in followed.stdout
    assert json.loads(streamed.stdout.splitlines()[-1])["phase"] == "failed"
    assert "exit code 3" in next(line for line in keeper_job(keeper, "list").stdout.splitlines() if line.startswith("fails"))


def test_asked_again_while_it_goes_on_it_is_the_same_run(keeper: KeeperProcess, going: str) -> None:
    assert keeper_job(keeper, "run", "waits").stdout.strip() == going
    assert said(keeper_job(keeper, "run", "waits", "--json"))["run_id"] == going
    shown = said(keeper_job(keeper, "status", "--json"))["runs"]
    assert [(run["phase"], run["is_alive"]) for run in shown if run["run_id"] == going] == [("running", True)]
    assert going in keeper_job(keeper, "status").stdout


def test_a_run_is_cancelled_and_who_waits_is_told(keeper: KeeperProcess, going: str) -> None:
    with in_background("job", "status", going, "--follow", PONDKEEPER_URL=keeper.url, PONDKEEPER_KEY=keeper.key) as waiting:
        ended = said(keeper_job(keeper, "cancel", "waits", "--wait", "--json"))
        assert (ended["phase"], ended["run_id"]) == ("cancelled", going)
        _, told = waiting.communicate(timeout=60)
        assert (waiting.returncode, "run_cancelled" in told) == (5, True), told
    assert keeper_job(keeper, "cancel", going).returncode == 0  # what has ended stays as it is
    assert said(keeper_job(keeper, "status", going, "--json"))["phase"] == "cancelled"


def test_ctrl_c_ends_the_watching_and_not_the_run(keeper: KeeperProcess, going: str) -> None:
    with in_background("job", "status", going, "--follow", "--home", str(keeper.home.root)) as watching:
        assert watching.stderr is not None
        assert "waits: " in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        _, told = watching.communicate(timeout=60)
    assert (watching.returncode, "the run goes on" in told) == (130, True), told
    assert is_alive(keeper.home.root, going)


def test_status_answers_while_the_keeper_does_not(keeper: KeeperProcess, going: str) -> None:
    """What is known of runs is read from their files: no keeper has to answer."""
    os.kill(keeper.pid, signal.SIGSTOP)
    try:
        assert said(keeper_job(keeper, "status", "waits", "--json"))["phase"] == "running"
        assert "begun" in keeper_job(keeper, "logs", "waits", "-n", "1").stdout
    finally:
        os.kill(keeper.pid, signal.SIGCONT)


def test_a_job_is_switched_by_who_may(keeper: KeeperProcess) -> None:
    key = keeper.cli("key", "create", "writer of jobs", "--role", "writer").stdout.strip()
    environment = {"PONDKEEPER_URL": keeper.url, "PONDKEEPER_KEY": key}
    assert pondkeeper("job", "disable", "quick", **environment).returncode == 3
    assert keeper_job(keeper, "disable", "quick").returncode == 0
    assert said(pondkeeper("job", "show", "quick", "--json", **environment))["is_enabled"] is False
    assert "off" in keeper_job(keeper, "list").stdout
    assert keeper_job(keeper, "enable", "quick").returncode == 0
    assert said(keeper_job(keeper, "show", "quick", "--json"))["is_enabled"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "quik"), 2, "did you mean 'quick'?"),
        (("status", "nothing"), 2, "no run of a job 'nothing'"),
        (("logs", "20261121T031500Z-4f2a9c"), 2, "run_not_found"),
        (("status", "--follow"), 2, "Name the run"),
        (("accept", "quick"), 2, "asked about no change"),
    ],
)
def test_what_cannot_be_is_said(keeper: KeeperProcess, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = keeper_job(keeper, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


@pytest.mark.fault
def test_a_keeper_killed_in_the_middle_is_not_noticed_by_who_follows(tmp_path: Path) -> None:
    """From another machine, too: the run goes on, the next keeper finds it, the log is whole, and its end is recorded once."""
    with KeeperProcess(folder_with_jobs(tmp_path)) as keeper:
        with in_background("job", "run", "waits", "--follow", PONDKEEPER_URL=keeper.url, PONDKEEPER_KEY=keeper.key) as following:
            run = wait_until(lambda: runs_of(keeper.home.root), what="a run")[0]
            wait_until(lambda: is_alive(keeper.home.root, run) and "begun" in keeper.cli("job", "logs", run).stdout)
            keeper.kill9()
            assert said(keeper_job(keeper, "status", run, "--json"))["is_alive"]
            keeper.restart()
            (tmp_path / "go").touch()
            out, told = following.communicate(timeout=60)
        assert (following.returncode, out.strip()) == (0, run), told
        assert [told.count(text) for text in ("Z begun", "Z went on", "waits is done")] == [1, 1, 1]
        assert [each["run_id"] for each in said(keeper_job(keeper, "history", "--json"))["runs"]] == [run]


def test_all_of_it_without_a_keeper(tmp_path: Path) -> None:
    """The command carries the run out; a keeper that starts later knows what became of it."""
    target = folder_with_jobs(tmp_path)

    def job(*arguments: str) -> subprocess.CompletedProcess[str]:
        return pondkeeper("job", *arguments, "--home", str(tmp_path / ".pondkeeper"))

    assert [each["last"] for each in said(job("list", "--json"))["jobs"]] == [None, None, None]
    assert not (tmp_path / ".pondkeeper" / "control.db").exists(), "looking makes nothing"
    followed, failed = job("run", "quick", "--follow"), job("run", "fails", "--json")
    assert (followed.returncode, failed.returncode) == (0, 11), followed.stderr + failed.stderr
    assert "no keeper runs here" in followed.stderr
    assert "Z one\n" in followed.stderr
    assert json.loads(failed.stdout)["exit_code"] == 3
    run = followed.stdout.strip()
    assert "attempt ended with 0, done" in job("logs", "quick", "-n", "2").stdout
    assert [each["run_id"] for each in said(job("history", "quick", "--json"))["runs"]] == [run]
    switched = job("disable", "fails")
    assert switched.returncode == 0, switched.stderr
    shown = said(job("show", "fails", "--json"))
    assert (shown["is_enabled"], shown["last"]["phase"]) == (False, "failed")
    with KeeperProcess(target) as keeper:
        listed = {each["name"]: each for each in said(keeper_job(keeper, "list", "--json"))["jobs"]}
        assert (listed["quick"]["last"]["run_id"], listed["fails"]["is_enabled"]) == (run, False)


def test_a_broken_file_is_told_of_line_by_line(tmp_path: Path) -> None:
    folder_with_jobs(tmp_path, JOBS + '\n[jobs.bad]\nkind = "comand"\n\n[jobs.worse]\nkind = "command"\ncommand = ["true"]\nafter = ["quik"]\n')
    done = pondkeeper("job", "list", "--home", str(tmp_path / ".pondkeeper"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'command'?" in done.stderr
    assert "did you mean 'quick'?" in done.stderr
    assert done.stderr.count("line ") >= 2

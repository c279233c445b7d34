"""Runs in a real keeper: one for eight clicks, so many at once, found again after every kind of kill, and cancelled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.folders import read_status, runs_of
from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import RunStatus
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import is_alive

# Each program says its number, and stays until there is a file `go`: no test depends on how fast anything is.
STAYS = 'echo "there $$"; while [ ! -e go ]; do sleep 0.05; done; echo gone'
SETTINGS = """
[runs]
max_running = 2
kill_after_s = 2
{more}
[jobs.one]
kind = "command"
command = ["sh", "-c", '{stays}']
retries = 3
retry_wait_s = 0.1

[jobs.two]
kind = "command"
command = ["sh", "-c", '{stays}']

[jobs.hurried]
kind = "command"
command = ["echo", "hurried"]
priority = "interactive"

[jobs.patient]
kind = "command"
command = ["echo", "patient"]
"""


class Jobs:
    """A keeper with jobs, seen through its client and through the folders of its runs."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.file = folder / "shop.duckdb"
        self.home = Home(default_home(self.file))
        self.home.root.mkdir()
        self.home.settings_file.write_text(SETTINGS.format(stays=STAYS, more=more))
        self.go = folder / "go"
        self.keeper = KeeperProcess(self.file)

    def run(self, job: str) -> str:
        return str(self.keeper.local_client().jobs.run(job)["run_id"])

    def status(self, run_id: str) -> RunStatus:
        status = read_status(self.home.root, run_id)
        assert status is not None
        return status

    def log(self, run_id: str) -> str:
        log = self.home.run(run_id).log
        return log.read_text() if log.exists() else ""

    def there(self, run_id: str, attempt: int = 1) -> int:
        """Wait until the program of this attempt is there; its pid."""

        def numbers() -> list[int]:
            return [int(line.rpartition(" ")[2]) for line in self.log(run_id).splitlines() if "Z there " in line]

        return int(wait_until(lambda: numbers()[attempt - 1 :], what=f"attempt {attempt}")[0])

    def ended(self, run_id: str) -> RunStatus:
        wait_until(lambda: self.status(run_id).is_final, what=f"the end of {run_id}")
        return self.status(run_id)

    def recorded(self, run_id: str) -> dict[str, Any]:
        """What history has of it."""
        wait_until(self.home.run(run_id).recorded.exists, what="the record of the run")
        return self.keeper.local_client().jobs.status(run_id)

    def dispose(self) -> None:
        try:
            self.keeper.dispose()
        finally:
            for run_id in runs_of(self.home.root):
                end_orphans(run_id)  # Why: runs outlive their keeper on purpose.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path_factory.mktemp("running"))
    jobs.keeper.start()
    yield jobs
    jobs.dispose()


@pytest.fixture
def jobs(shared: Jobs) -> Iterator[Jobs]:
    """The shared keeper, running, with nothing going on before and after."""
    if not shared.keeper.is_running():
        shared.keeper.restart()
    shared.go.unlink(missing_ok=True)
    yield shared
    shared.go.touch()
    if not shared.keeper.is_running():
        shared.keeper.restart()
    for run_id in runs_of(shared.home.root):
        shared.ended(run_id)


def test_eight_clicks_are_one_run(jobs: Jobs) -> None:
    """While it waits, and while it goes on; another click after its end is another run."""
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(jobs.run, ["one"] * 8))
    assert len(ids) == 1
    run_id = ids.pop()
    jobs.there(run_id)
    assert jobs.run("one") == run_id
    jobs.go.touch()
    assert jobs.ended(run_id).phase == "done"
    assert jobs.recorded(run_id)["phase"] == "done"
    assert jobs.run("one") != run_id


def test_so_many_at_once_and_the_others_by_priority(jobs: Jobs) -> None:
    """`runs.max_running` = 2: what comes later waits, the hurried before the patient, whoever came first."""
    busy = [jobs.run("one"), jobs.run("two")]
    pids = [jobs.there(run_id) for run_id in busy]
    patient, hurried = jobs.run("patient"), jobs.run("hurried")
    assert all(is_alive(pid) for pid in pids)
    assert {jobs.status(each).phase for each in (patient, hurried)} == {"queued"}
    listed = jobs.keeper.local_client().jobs.runs(limit=4)
    assert [run["run_id"] for run in listed] == sorted([*busy, patient, hurried], reverse=True)
    jobs.keeper.local_client().jobs.cancel(busy[0])
    ends = [jobs.ended(hurried), jobs.ended(patient)]
    assert [end.phase for end in ends] == ["done", "done"]
    assert ends[0].started_at is not None
    assert ends[1].started_at is not None
    assert ends[0].started_at < ends[1].started_at
    assert jobs.ended(busy[0]).phase == "cancelled"


def test_what_becomes_of_a_run_is_told_as_it_happens(jobs: Jobs) -> None:
    """Who listens hears of its queueing, its start, its progress and its end, in this order."""
    kinds = ("run_queued", "run_started", "run_progress", "run_finished")
    told: list[dict[str, Any]] = []

    def listen() -> None:
        for event in jobs.keeper.local_client(timeout_s=60.0).events(kinds=kinds):
            told.append(event)
            if event["kind"] == "run_finished" and event["job"] == "patient":
                return

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        # Why again and again: nobody can see from here when the listener is let in.
        wait_until(lambda: told or (jobs.ended(jobs.run("hurried")) and None), what="an event")
        run_id = jobs.run("one")
        jobs.there(run_id)
        wait_until(lambda: any(each["kind"] == "run_progress" and each["run_id"] == run_id for each in told), what="progress")
        jobs.go.touch()
        jobs.ended(run_id)
        wait_until(lambda: any(each["kind"] == "run_finished" and each["run_id"] == run_id for each in told), what="its end")
        jobs.run("patient")
        listening.result(60)
    kinds_told = [each["kind"] for each in told if each["run_id"] == run_id]
    assert sorted(set(kinds_told), key=kinds_told.index) == list(kinds)
    last = next(each for each in told if each["run_id"] == run_id and each["kind"] == "run_finished")
    assert (last["job"], last["phase"], last["exit_code"], last["database"]) == ("one", "done", 0, "shop")


def test_what_waits_is_cancelled_at_once(jobs: Jobs) -> None:
    """And is never started."""
    busy = [jobs.run("one"), jobs.run("two")]
    waiting = jobs.run("patient")
    assert jobs.keeper.local_client().jobs.cancel(waiting)["phase"] == "cancelled"
    assert jobs.recorded(waiting)["phase"] == "cancelled"
    again = jobs.run("patient")
    assert again != waiting
    jobs.go.touch()
    for run_id in (*busy, again):
        jobs.ended(run_id)
    assert not jobs.home.run(waiting).log.exists()


@pytest.mark.fault
def test_a_killed_keeper_loses_no_run(jobs: Jobs) -> None:
    """What goes on goes on, and is the same process afterwards; what waits is started by the next keeper."""
    busy = [jobs.run("one"), jobs.run("two")]
    pids = [jobs.there(run_id) for run_id in busy]
    waiting = jobs.run("patient")
    jobs.keeper.kill9()
    assert all(is_alive(pid) for pid in pids)
    jobs.keeper.restart()
    assert jobs.run("one") == busy[0]
    assert jobs.status(waiting).phase == "queued"
    jobs.go.touch()
    for run_id in (*busy, waiting):
        assert (jobs.ended(run_id).phase, jobs.status(run_id).attempt) == ("done", 1)
        assert jobs.recorded(run_id)["phase"] == "done"


@pytest.mark.fault
def test_a_run_that_was_killed_with_its_keeper_begins_again_or_is_lost(jobs: Jobs) -> None:
    """The machine lost power, say: where the job allows it, its run begins again; else it says that nobody knows."""
    again, lost = jobs.run("one"), jobs.run("two")
    pids = [jobs.there(run_id) for run_id in (again, lost)]
    supervisors = [jobs.status(run_id).pid for run_id in (again, lost)]
    for pid in (jobs.keeper.pid, *supervisors):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    jobs.keeper.process.wait()
    jobs.keeper.restart()
    jobs.there(again, attempt=2)
    assert not any(is_alive(pid) for pid in pids)
    jobs.go.touch()
    ended = jobs.ended(again)
    assert (ended.phase, ended.trigger, ended.attempt) == ("done", "resumed", 2)
    assert (jobs.ended(lost).error or {})["code"] == "run_lost"


@pytest.mark.fault
def test_a_supervisor_that_is_killed_alone_is_noticed(jobs: Jobs) -> None:
    """The keeper sees its death at once, ends what it left behind, and begins again."""
    run_id = jobs.run("one")
    program, supervisor = jobs.there(run_id), jobs.status(run_id).pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    jobs.there(run_id, attempt=2)
    assert not is_alive(program)
    assert jobs.status(run_id).trigger == "resumed"


def test_a_run_that_ends_without_a_keeper_is_recorded_by_the_next(jobs: Jobs) -> None:
    """An orderly stop leaves runs alone too."""
    run_id = jobs.run("one")
    program = jobs.there(run_id)
    assert jobs.keeper.stop() == 0
    assert is_alive(program)
    jobs.go.touch()
    assert jobs.ended(run_id).phase == "done"
    assert not jobs.home.run(run_id).recorded.exists()
    jobs.keeper.restart()
    assert jobs.recorded(run_id)["phase"] == "done"


@pytest.mark.fault
def test_runs_that_are_to_end_with_their_keeper_do(tmp_path: Path) -> None:
    """`runs.when_keeper_dies = "end"`: nothing lives on after a kill -9, and the next keeper begins again."""
    jobs = Jobs(tmp_path, more='when_keeper_dies = "end"')
    try:
        jobs.keeper.start()
        run_id = jobs.run("one")
        program = jobs.there(run_id)
        jobs.keeper.kill9()
        wait_until(lambda: not is_alive(program), what="the end of the program")
        wait_until(lambda: jobs.status(run_id).phase == "queued", what="the run in the queue")
        jobs.keeper.restart()
        second = jobs.there(run_id, attempt=2)
        assert jobs.keeper.stop() == 0  # and so does an orderly stop, which waits for it
        assert not is_alive(second)
        assert (jobs.status(run_id).phase, jobs.status(run_id).attempt) == ("queued", 3)
    finally:
        jobs.dispose()

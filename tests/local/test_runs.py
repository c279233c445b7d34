"""Runs of jobs where no keeper answers: from their folders, and from control.db when these have gone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.errors import JobNotFound, RunLost, RunNotFound
from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import Home
from pondkeeper.jobs.folders import new_run_id, paths_of
from pondkeeper.jobs.history import record_now
from pondkeeper.jobs.status import Phase, RunStatus, write_status
from pondkeeper.local import jobs, runs
from tests.support.keeper import pondkeeper

JOBS = '[jobs.nightly]\nkind = "command"\ncommand = ["true"]\n\n[jobs.other]\nkind = "command"\ncommand = ["true"]\nenabled = false\n'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / ".pondkeeper")
    make_folder(home.root, durable=False)
    home.settings_file.write_text(JOBS)
    return home


def make(home: Home, phase: Phase, *, age_s: float = 0.0, log: str = "", **values: Any) -> RunStatus:
    """A run of `nightly` in this phase, begun so long ago."""
    at = time.time() - age_s
    status = RunStatus(new_run_id(at), "nightly", "command", "pond", phase, 1, "manual", at, at, **values)
    paths = paths_of(home.root, status.run_id)
    make_folder(paths.folder, durable=False)
    write_status(paths.status_json, status, durable=False)
    if log:
        paths.log.write_text(log)
    return status


def end(home: Home, status: RunStatus, log_end: str = "") -> None:
    """The run is recorded, and its folder goes."""
    record_now(home, status, log_end, None, keep_s=1e9)
    shutil.rmtree(paths_of(home.root, status.run_id).folder)


def test_a_run_is_followed_to_its_end(home: Home) -> None:
    status = make(home, Phase.RUNNING, log="one\ntwo ä")
    paths = paths_of(home.root, status.run_id)
    seen: list[dict[str, Any]] = []
    with FlockFile(paths.lock) as lock:
        assert lock.try_acquire()
        for each in runs.follow(home, status.run_id, log=True):
            seen.append(each)
            if not each:
                with paths.log.open("a") as log:
                    log.write(" more\n")
                status.phase = Phase.DONE
                write_status(paths.status_json, status, durable=False)
    assert "".join(each.get("log", "") for each in seen) == "one\ntwo ä more\n"
    assert [each["run"]["phase"] for each in seen if "run" in each] == ["running", "done"]
    assert seen[0].get("log"), "what it wrote comes before what it says of itself"


def test_who_follows_what_nobody_carries_out_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once that nobody does; after a while that nobody comes."""
    monkeypatch.setattr(runs, "NOBODY_S", 0.3)
    for phase in (Phase.QUEUED, Phase.RUNNING):
        told: list[str] = []
        run_id = make(home, phase).run_id
        with pytest.raises(RunLost):
            list(runs.follow(home, run_id, warn=told.append))
        assert len(told) == 1
        shown = runs.seen(home, run_id)
        assert shown is not None
        assert runs.is_lost(shown) is (phase is Phase.RUNNING)


def test_a_run_is_named_by_its_id_or_its_job(home: Home) -> None:
    old, new = make(home, Phase.DONE, age_s=100), make(home, Phase.DONE)
    assert runs.run_named(home, "nightly") == new.run_id
    assert runs.run_named(home, old.run_id) == old.run_id
    for name in ("other", "nothing", "../control.db"):
        with pytest.raises(RunNotFound):
            runs.run_named(home, name)
    assert list(runs.log(home, new.run_id)) == []


def test_the_last_lines_and_what_comes(home: Home) -> None:
    status = make(home, Phase.DONE, log="one\ntwo\nthree\n")
    assert b"".join(runs.log(home, status.run_id, lines=2)) == b"two\nthree\n"
    assert b"".join(runs.log(home, status.run_id, lines=1, follow_=True)) == b"three\n"


def test_history_has_the_runs_whose_folders_have_gone(home: Home) -> None:
    """Each once, the youngest first, with what the folder says where there is one."""
    gone = make(home, Phase.FAILED, age_s=200, finished_at=time.time() - 199)
    end(home, gone, "the end of its log\n")
    done, going = make(home, Phase.DONE, age_s=100, finished_at=time.time()), make(home, Phase.RUNNING)
    record_now(home, done, "", None, keep_s=1e9)

    listed = jobs.history(home, None, limit=10, before=None)
    assert [each["run_id"] for each in listed] == [going.run_id, done.run_id, gone.run_id]
    assert [each["run_id"] for each in jobs.history(home, "nightly", limit=1, before=done.run_id)] == [gone.run_id]
    assert jobs.history(home, "other", limit=10, before=None) == []
    shown = jobs.job(home, "nightly")
    assert (shown["current"]["run_id"], shown["last"]["run_id"]) == (going.run_id, done.run_id)
    assert jobs.ended_run(home, gone.run_id)["phase"] == "failed"
    with pytest.raises(RunNotFound):
        jobs.ended_run(home, going.run_id)


def test_logs_and_status_of_a_run_whose_folder_has_gone(home: Home) -> None:
    gone = make(home, Phase.DONE, finished_at=time.time())
    end(home, gone, "the end of its log\n")
    log = pondkeeper("job", "logs", gone.run_id, "--home", str(home.root))
    status = pondkeeper("job", "status", gone.run_id, "--home", str(home.root))
    assert (log.returncode, log.stdout) == (0, "the end of its log\n"), log.stderr
    assert status.stdout.startswith(f"run {gone.run_id} of nightly (command, pond): done"), status.stderr


def test_a_switch_is_kept_for_the_next_keeper(home: Home) -> None:
    enabled = {each["name"]: each["is_enabled"] for each in jobs.listed(home)["jobs"]}
    assert enabled == {"nightly": True, "other": False}
    jobs.enable(home, "other", enabled=True)
    jobs.enable(home, "nightly", enabled=False)
    assert {each["name"]: each["is_enabled"] for each in jobs.listed(home)["jobs"]} == {"nightly": False, "other": True}
    with pytest.raises(JobNotFound, match="did you mean 'nightly'"):
        jobs.enable(home, "nigthly", enabled=True)


def test_the_settings_file_that_the_environment_names(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[jobs.elsewhere]\nkind = "command"\ncommand = ["true"]\n')
    monkeypatch.setenv("PONDKEEPER_CONFIG", str(other))
    assert [each["name"] for each in jobs.listed(home)["jobs"]] == ["elsewhere"]

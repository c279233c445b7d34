"""Which run comes next, and that all that is known of a run comes back from its files as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pondkeeper.errors import DatabaseNotFound, JobInvalid, RunNotFound
from pondkeeper.files.paths import Home
from pondkeeper.jobs.definition import Job, Notify, Schedule
from pondkeeper.jobs.folders import new_run_id, paths_of, runs_of
from pondkeeper.jobs.keeping import mark_recorded, prune
from pondkeeper.jobs.kinds_settings import KINDS, CommandSettings
from pondkeeper.jobs.launching import Launcher, file_of, with_database
from pondkeeper.jobs.lineup import Lineup
from pondkeeper.jobs.losing import MOST_LOSSES, interrupted
from pondkeeper.jobs.plan import plan_json, plan_of, read_plan
from pondkeeper.jobs.status import Phase, RunStatus, status_in, status_json, status_of, write_status
from pondkeeper.settings import Settings
from pondkeeper.settings.tree import RunSettings


def queued(job: str, at: float, priority: str = "background", not_before: float | None = None) -> RunStatus:
    return RunStatus(f"{at}", job, "command", None, Phase.QUEUED, 1, "manual", at, priority=priority, not_before=not_before)


def job(**more: object) -> Job:
    return Job("work", "command", None, CommandSettings(command=("true",)), **more)  # type: ignore[arg-type]


def made(home: Home) -> RunStatus:
    return Launcher(home, Settings.load(home.settings_file, environment={})).queue(job(), None, "manual")


def test_priority_then_age_and_one_of_a_job_at_a_time() -> None:
    """Who is being waited for comes first; a job whose run goes on waits, and lets others pass."""
    lineup = Lineup(max_running=2)
    runs = [queued("a", 1), queued("b", 2), queued("c", 3, "interactive"), queued("a", 4)]
    for run in runs:
        lineup.add(run)
    order = []
    while found := lineup.next(now=10):
        lineup.begin(found)
        order.append(found.job)
    assert order == ["c", "a"]
    lineup.remove("3")
    found = lineup.next(now=10)
    assert found is not None
    assert found.job == "b"  # the second run of `a` is behind its first
    lineup.begin(found)
    lineup.remove("1")
    found = lineup.next(now=10)
    assert found is not None
    assert (found.job, found.created_at) == ("a", 4)


def test_a_pause_between_attempts_holds_up_nobody_else() -> None:
    """And its end is known, so that somebody looks then."""
    lineup = Lineup(max_running=1)
    lineup.add(queued("a", 1, not_before=50.0))
    lineup.add(queued("b", 2))
    found = lineup.next(now=10)
    assert found is not None
    assert found.job == "b"
    assert lineup.next_due_at(now=10) == 50.0
    found = lineup.next(now=50)
    assert found is not None
    assert found.job == "a"


def test_a_clock_that_was_set_back_holds_up_nothing() -> None:
    """A pause that would last for years is none that anybody has asked for."""
    lineup = Lineup(max_running=1)
    lineup.add(queued("a", 1, not_before=1e9))
    assert lineup.next(now=10) is not None
    assert lineup.next_due_at(now=10) is None


def test_jobs_that_always_run_take_nobodys_place() -> None:
    """Else two captures of changes would keep every other job from running, for ever."""
    lineup = Lineup(max_running=1)
    for place, name in enumerate(("cdc", "cdc2", "a", "b")):
        lineup.add(queued(name, place))
    order = []
    while found := lineup.next(now=10, unlimited=["cdc", "cdc2"]):
        lineup.begin(found)
        order.append(found.job)
    assert order == ["cdc", "cdc2", "a"]


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    """Also of a home that was moved meanwhile."""
    home = Home(tmp_path / ".pondkeeper")
    full = job(schedule=Schedule("0 5 * * *", "Europe/Berlin"), after=("x",), timeout_s=5.0, notify=Notify("http://h", ("failure",)), line=3)
    launcher = Launcher(home, Settings.load(home.settings_file, environment={}))
    run_id = launcher.queue(full, tmp_path / "w.duckdb", "schedule").run_id
    plan = read_plan(home.run(run_id).plan_json)
    assert (plan.job, plan.database_file, plan.workdir, plan.trigger) == (full, tmp_path / "w.duckdb", tmp_path, "schedule")
    moved = Home(tmp_path / "moved" / ".pondkeeper")
    moved.root.parent.mkdir()
    home.root.rename(moved.root)
    plan = read_plan(moved.run(run_id).plan_json)
    assert (plan.home, plan.folder) == (moved.root, moved.run(run_id).folder)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_settings_of_every_kind_survive_a_plan(kind: str, tmp_path: Path) -> None:
    """What a kind reads in its run is what the loader made."""
    home = Home(tmp_path / ".pondkeeper")
    plan = read_plan(home.run(made(home).run_id).plan_json)
    data = plan_json(plan) | {"job": plan_json(plan)["job"] | {"kind": kind, "settings": {}}}
    assert isinstance(plan_of(data).job.settings, KINDS[kind])
    with pytest.raises(JobInvalid):
        plan_of(data | {"job": data["job"] | {"kind": "no such kind"}})


def test_a_status_comes_back_as_it_was(tmp_path: Path) -> None:
    """To the millisecond; what a later release has added is no error; half a file is no status."""
    status = queued("a", 1_700_000_000.125, not_before=1_700_000_001.5)
    status.tables, status.versions, status.details = {"t": {"rows": 1, "size_bytes": 2}}, [3], {"x": [1]}
    assert status_of(status_json(status) | {"of_the_future": 1}) == status
    write_status(tmp_path / "s", status, durable=False)
    assert status_in(tmp_path / "s") == status
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:100])
    assert status_in(tmp_path / "s") is None


def test_losses_without_end_are_a_failure() -> None:
    """A run that takes its machine down each time must not do so for ever; one that is lost now and then may."""
    status = queued("a", 1)
    for loss in range(3 * MOST_LOSSES):
        interrupted(status, {"kind": "postgres", "retries": 0}, now=loss * 3600.0)
    assert status.phase is Phase.QUEUED
    losses = 0
    while status.phase is Phase.QUEUED:
        interrupted(status, {"kind": "postgres", "retries": 0}, now=1e9 + losses)
        losses += 1
    assert losses == MOST_LOSSES + 1


def test_old_runs_go_when_they_are_recorded(tmp_path: Path) -> None:
    """The oldest beyond `runs.keep`, and all beyond `runs.keep_s`; never one that history does not have, or that goes on."""
    home = Home(tmp_path / ".pondkeeper")
    ids = sorted(made(home).run_id for _ in range(6))
    for run_id in ids[:5]:
        paths = home.run(run_id)
        status = status_in(paths.status_json)
        assert status is not None
        status.phase = Phase.DONE
        write_status(paths.status_json, status, durable=False)
        if run_id != ids[1]:
            mark_recorded(paths)
    assert prune(home, RunSettings(keep=4)) == [ids[0]]
    assert prune(home, RunSettings(keep=4)) == []
    now = home.run(ids[2]).folder.stat().st_mtime + 100
    assert sorted(prune(home, RunSettings(keep_s=60.0), now)) == ids[2:5]
    assert runs_of(home.root) == [ids[5], ids[1]]


def test_ids_sort_by_time_and_cannot_leave_their_folder(tmp_path: Path) -> None:
    """Also two of one second; and whatever else is asked for is no run."""
    ids = [new_run_id(1_700_000_000.0 + step / 500) for step in range(1000)]
    assert ids == sorted(ids)
    for text in ("../../etc", "20261121T031500Z-4f2a9c/..", "20261121T031500Z-4f2a9c\n", ""):
        with pytest.raises(RunNotFound):
            paths_of(tmp_path, text)


def test_the_database_of_a_job(tmp_path: Path) -> None:
    """The one that it names; of one that names none the only one there is, and none for a command where there are more."""
    one, two = {"a": tmp_path / "a"}, {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert with_database(job(), one).database == "a"
    assert with_database(job(), two).database is None
    assert file_of(with_database(job(), one), one) == tmp_path / "a"
    assert file_of(job(), two) is None
    with pytest.raises(DatabaseNotFound):
        file_of(Job("d", "dbt", None, None), two)
    with pytest.raises(DatabaseNotFound):
        file_of(Job("d", "dbt", "c", None), two)

"""Jobs of the kind `dbt`: what was built and what failed, several due runs as one, and a build that is killed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import pondkeeper
from pondkeeper.errors import RunCancelled
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.dbt import artifacts
from pondkeeper.kinds.dbt.together import Together, folder_for
from tests.kinds.running import Started, job_running, run_job
from tests.support.keeper import KeeperProcess, wait_until

needs_dbt = pytest.mark.skipif(not Path(sys.executable).with_name("dbt").exists(), reason="dbt is not installed beside this Python")
FILES = {
    "dbt_project.yml": """
name: small
version: "1.0.0"
config-version: 2
profile: small
flags: {send_anonymous_usage_stats: false}
models: {small: {+materialized: table}}
""",
    "profiles.yml": """
small:
  target: keeper
  outputs: {keeper: {type: duckdb, path: "{{ env_var('PONDKEEPER_DATABASE') }}", schema: marts, threads: 1}}
""",
    "models/numbers.sql": "SELECT range AS n FROM range({{ var('many', 10) }})",
    "models/doubled.sql": "SELECT 2 * n AS n FROM {{ ref('numbers') }}",
    "models/seen.sql": "{{ config(materialized='view') }} SELECT * FROM {{ ref('numbers') }}",
    "models/slow.sql": "SELECT count(*) AS n FROM range({{ var('slow', 10) }}) a, range({{ var('slow', 10) }}) b WHERE a.range * b.range % 7 = 1",
    "tests/few_numbers.sql": "SELECT n FROM {{ ref('numbers') }} WHERE n >= 10",
}


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper whose database has no marts yet."""
    with KeeperProcess(tmp_path_factory.mktemp("dbt") / "shop.duckdb") as keeper:
        keeper.client().execute("CREATE TABLE other AS SELECT 1 AS id")
        yield keeper


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dbt project of four models and one test."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names(run: Started, status: str) -> list[str]:
    return sorted(node["name"] for node in run.status().details["nodes"] if node["status"] == status)


@needs_dbt
@pytest.mark.fault
def test_a_failed_test_fails_the_run_and_a_killed_build_frees_the_database(keeper: KeeperProcess, project: Path) -> None:
    """After kill -9 in the middle of a model the next build has its turn; what a failed test is for is not built."""
    settings: dict[str, Any] = {"project": str(project), "vars": "{slow: 3000000}", "select": ("slow",)}
    with job_running(keeper.target, "dbt", **settings) as run:
        wait_until(lambda: "START sql table model marts.slow" in run.log(), what="the build", timeout_s=120)
        run.process.kill()
        run.process.wait()
    run = run_job(keeper.target, "dbt", project=str(project), vars="{many: 11}", exclude=("slow",))
    status = run.status()
    assert status.phase == Phase.FAILED, run.log()
    assert status.error is not None
    assert "test few_numbers: Got 1 result" in status.error["message"]
    assert status.details["outcomes"] == {"fail": 1, "skipped": 2, "success": 1}
    assert (names(run, "success"), names(run, "skipped")) == (["numbers"], ["doubled", "seen"])
    assert status.details["tables_changed"] == ["marts.numbers"]
    assert status.tables == {"marts.numbers": {"rows": 11, "size_bytes": 0}}
    [version] = status.versions
    assert keeper.client().query("SELECT count(*) FROM marts.numbers", at_least=version).scalar() == 11
    took_s = (status.finished_at or 0) - (status.started_at or 0)
    assert 0 < status.held_s < took_s  # the project was read before


@needs_dbt
def test_runs_that_are_due_together_are_one_build(keeper: KeeperProcess, project: Path) -> None:
    """Two jobs of one project wait for the database: who has the turn builds for both, and each has its own result."""
    common: dict[str, Any] = {"project": str(project), "vars": "{many: 5}", "command": "run"}
    with ExitStack() as runs:
        with pondkeeper.write(keeper.target, reason="somebody has it"):
            first = runs.enter_context(job_running(keeper.target, "dbt", name="first", select=("numbers",), **common))
            wait_until(lambda: first.status().lease, what="the first in line", timeout_s=120)
            second = runs.enter_context(job_running(keeper.target, "dbt", name="second", select=("doubled", "seen"), **common))
            wait_until(lambda: second.status().phase == Phase.WAITING, what="the second run", timeout_s=120)
            wait_until(lambda: (first.status().lease or {}).get("why") == "somebody has it", what="why the first waits")
        one, two = first.ended(), second.ended()
    assert (one.phase, two.phase) == (Phase.DONE, Phase.DONE), first.log() + second.log()
    assert (one.details["built_for"], two.details["built_by"]) == ([two.run_id], one.run_id)
    assert names(first, "success") == ["numbers"]
    assert names(second, "success") == ["doubled", "seen"]
    assert (two.held_s, two.versions) == (0, one.versions)
    assert keeper.client().query("SELECT sum(n)::INTEGER FROM marts.doubled", at_least=one.versions[-1]).scalar() == 20


def test_a_python_without_dbt_is_said(keeper: KeeperProcess, project: Path) -> None:
    """Where dbt is not installed the run says which extra is missing, and nobody has waited for the database."""
    bare = Path(sys.executable).resolve()  # Why: without its environment it has no packages.
    status = run_job(keeper.target, "dbt", project=str(project), python=str(bare)).status()
    assert status.error is not None
    assert (status.error["code"], status.held_s) == ("extra_missing", 0)


def wish(folder: Path, run_id: str, *select: str, dead: tuple[str, ...] = ()) -> Together:
    return Together(folder, run_id, select, lambda run: run not in dead)


def test_who_waits_leads_when_the_leader_has_died(tmp_path: Path) -> None:
    """Wishes of the dead are dropped; one that nobody has answered makes its run the next leader."""
    folder = folder_for(tmp_path, {"project": "small"})
    assert folder != folder_for(tmp_path, {"project": "other"})
    leader = wish(folder, "a", "x")
    assert leader.lead_or_follow(threading.Event(), lambda text: None) is None
    waiting = wish(folder, "b", "y", dead=("a",))
    told: list[str] = []
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(waiting.lead_or_follow(threading.Event(), told.append)))
    thread.start()
    wait_until(lambda: told, what="the wait")
    assert leader.gather() == {"a": ["x"], "b": ["y"]}
    leader._lock.release()  # as the kernel does for a process that was killed: its wish stays
    thread.join(30)
    assert found == [None]
    assert waiting.gather() == {"b": ["y"]}
    waiting.leave()


def test_who_is_answered_follows(tmp_path: Path) -> None:
    """The result of the leader is that of the run that waited; a run that is ended meanwhile takes its wish back."""
    leader, follower = wish(tmp_path, "a"), wish(tmp_path, "b", "y")
    assert leader.lead_or_follow(threading.Event(), lambda text: None) is None
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(follower.lead_or_follow(threading.Event(), lambda text: None)))
    thread.start()
    wait_until(lambda: len(leader.gather()) == 2, what="the wish")
    leader.answer("b", {"led_by": "a"})
    thread.join(30)
    assert found == [{"led_by": "a"}]
    follower.leave()
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(RunCancelled):
        wish(tmp_path, "c").lead_or_follow(stopping, lambda text: None)
    leader.leave()


def test_results_are_read_from_the_artifacts_of_this_build(tmp_path: Path) -> None:
    """Those of an earlier one are not taken for this one's; a model that failed is named with its message."""
    results = [
        {"unique_id": "model.small.a", "status": "error", "message": "no such table", "execution_time": 0.5},
        {"unique_id": "model.small.b", "status": "skipped", "message": None, "execution_time": 0},
    ]
    (tmp_path / "run_results.json").write_text(json.dumps({"results": results}))
    (tmp_path / "manifest.json").write_text(json.dumps({"nodes": {}}))
    written_at = (tmp_path / "run_results.json").stat().st_mtime
    assert artifacts.read_nodes(tmp_path, written_at + 1) == []
    nodes = artifacts.read_nodes(tmp_path, written_at - 1)
    error = artifacts.failure(nodes, None)
    assert error is not None
    assert error.message == "1 of 2 nodes of the project failed, 1 skipped because of it. model a: no such table."
    assert artifacts.failure([], "it could not be parsed") is not None
    assert artifacts.failure([], None) is None

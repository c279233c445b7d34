"""Runs of downloads as they are: processes, a real keeper, a web server; ended, killed, and begun again."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.files.paths import default_home
from pondkeeper.jobs.endings import cancel_run
from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import Phase
from tests.kinds.running import Started, job_running, run_job
from tests.support.gallery import GalleryProcess, gallery
from tests.support.keeper import KeeperProcess, wait_until

QUERY = "SELECT id, '{url}/thumbs/' || id || '.png' AS url, id || '.png' AS file FROM {table} WHERE NOT done ORDER BY id"
MARK = "UPDATE {table} SET done = true, size = downloaded.size_bytes, sha256 = downloaded.sha256 FROM downloaded WHERE {table}.id = downloaded.id"
FAILED = "UPDATE {table} SET error = failed.error, status = failed.http_status FROM failed WHERE {table}.id = failed.id"


@pytest.fixture(scope="module")
def web() -> Iterator[GalleryProcess]:
    """A gallery in which every tenth image is unwell at first, and every fiftieth is lost."""
    with gallery("--unwell", "10", "--lost", "50") as web:
        yield web


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with an empty database."""
    with KeeperProcess(tmp_path_factory.mktemp("download") / "pictures.duckdb") as keeper:
        yield keeper


class Pictures:
    """A table of images, the job that downloads them, and the folder that they go to."""

    def __init__(self, keeper: KeeperProcess, web: GalleryProcess, table: str, numbers: range, folder: Path) -> None:
        self.keeper, self.web, self.table, self.folder = keeper, web, table, folder
        self.names = {f"img-{number:05d}" for number in numbers}
        keeper.client().execute(
            f"CREATE TABLE {table} AS SELECT format('img-{{:05d}}', n) AS id, false AS done, NULL::BIGINT AS size, NULL::VARCHAR AS sha256,"
            f" NULL::VARCHAR AS error, NULL::INTEGER AS status FROM range({numbers.start}, {numbers.stop}) t(n)"
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        table = self.table
        texts = {"query": QUERY.format(url=self.web.url, table=table), "mark": MARK.format(table=table)}
        return {**texts, "mark_failed": FAILED.format(table=table), "folder": str(self.folder), **more}

    def run(self, **more: Any) -> Started:
        return run_job(self.keeper.target, "download", name="pictures", **self.settings(**more))

    def marked(self) -> dict[str, tuple[int, str]]:
        """Size and hash of what the database says is there. After a write, so that it is of now."""
        version = self.keeper.client().execute(f"DELETE FROM {self.table} WHERE false").version
        sql = f"SELECT id, size, sha256 FROM {self.table} WHERE done"
        return {name: (size, sha256) for name, size, sha256 in self.keeper.client().query(sql, at_least=version).rows}

    def files(self) -> dict[str, tuple[int, str]]:
        """The same of what is there."""
        found = {path.stem: path.read_bytes() for path in self.folder.glob("*.png")}
        return {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in found.items()}


@pytest.fixture
def pictures(keeper: KeeperProcess, web: GalleryProcess, tmp_path: Path, request: pytest.FixtureRequest) -> Pictures:
    """Images of the test's own: no two tests download the same."""
    return Pictures(keeper, web, f"t_{abs(hash(request.node.name))}", request.param, tmp_path / "pictures")


@pytest.mark.parametrize("pictures", [range(1, 101)], indirect=True)
def test_all_that_can_be_had_is_had_and_the_database_agrees(pictures: Pictures) -> None:
    """Passing troubles are overcome; what is lost is noted and fails the run; the next one asks for nothing else."""
    before = pictures.web.tally()
    run = pictures.run(batch=30)
    status, lost = run.status(), {"img-00050", "img-00100"}
    assert (status.phase, status.error and status.error["code"]) == (Phase.FAILED, "run_failed"), run.log()
    assert pictures.marked() == pictures.files()
    assert pictures.files().keys() == pictures.names - lost
    assert (status.details["downloaded"], status.details["failed"], status.details["marked"]) == (98, 2, 100)
    assert (status.done, status.total, status.tables["files"]["rows"]) == (100, 100, 98)
    told = pictures.keeper.client().query(f"SELECT id, error, status FROM {pictures.table} WHERE NOT done ORDER BY id", at_least=status.versions[-1])
    assert [tuple(row) for row in told.rows] == [(name, "the server answered 404 Not Found", 404) for name in sorted(lost)]
    after = pictures.web.tally()
    assert after["200"] - before.get("200", 0) == 98
    assert after["503"] > before.get("503", 0)  # positive control: some were unwell
    again = pictures.run(max_failed=2)
    assert (again.status().phase, again.status().done) == (Phase.DONE, 2), again.log()
    assert pictures.web.tally()["200"] == after["200"]


@pytest.mark.parametrize("pictures", [range(201, 301)], indirect=True)
def test_a_cancelled_run_keeps_what_came_and_the_next_does_the_rest(pictures: Pictures) -> None:
    """What came before the cancel is durable and marked, though its batch was neither full nor old; hardly anything comes twice."""
    before = pictures.web.tally()
    settings = pictures.settings(requests_per_s=20.0, flush_every_s=600.0, max_failed=9)
    with job_running(pictures.keeper.target, "download", name="pictures", **settings) as run:
        wait_until(lambda: run.status().done >= 5, what="five files")
        assert pictures.files() == {}  # positive control: nothing is flushed yet
        cancel_run(default_home(pictures.keeper.target), run.paths.run_id, "a test")
        status = run.ended()
    assert status.phase == Phase.CANCELLED, run.log()
    assert 5 <= len(pictures.files()) < 98
    assert pictures.marked() == pictures.files()
    again = pictures.run(max_failed=9)
    assert again.status().phase == Phase.DONE, again.log()
    assert pictures.marked() == pictures.files()
    assert pictures.files().keys() == pictures.names - {"img-00250", "img-00300"}
    assert pictures.web.tally()["200"] - before.get("200", 0) <= 98 + 16  # Why 16: what a slow machine had under way at the end


@pytest.mark.fault
@pytest.mark.parametrize("pictures", [range(401, 501)], indirect=True)
def test_a_killed_run_leaves_whole_files_and_the_next_does_the_rest(pictures: Pictures) -> None:
    """After SIGKILL no file is there by half, no mark without its file; the next run completes everything."""
    settings = pictures.settings(requests_per_s=40.0, batch=5, max_failed=9)
    with job_running(pictures.keeper.target, "download", name="pictures", **settings) as run:
        wait_until(lambda: len(list(pictures.folder.glob("*.png"))) >= 10, what="ten files")
        os.killpg(run.process.pid, signal.SIGKILL)
        end_orphans(run.paths.run_id)
        run.process.wait()
    assert run.status().phase not in (Phase.DONE, Phase.FAILED)  # positive control: it was in its midst
    there = pictures.files()
    assert 10 <= len(there) < 98
    assert pictures.marked().items() <= there.items()
    again = pictures.run(max_failed=9)
    assert again.status().phase == Phase.DONE, again.log()
    assert pictures.marked() == pictures.files()
    assert {name: pictures.files()[name] for name in there} == there
    assert pictures.files().keys() == pictures.names - {"img-00450", "img-00500"}
    assert [path.name for path in pictures.folder.iterdir() if path.suffix != ".png"] == []


@pytest.mark.parametrize("pictures", [range(601, 603)], indirect=True)
def test_a_source_that_is_not_there_is_told_from_files_that_are_not(pictures: Pictures) -> None:
    """Nothing is noted as failed of a server that is away, and a run does not ask it for every single file."""
    away = "SELECT n::VARCHAR AS id, 'http://127.0.0.1:1/' || n AS url FROM range(5000) t(n)"
    run = pictures.run(query=away, attempts=1)
    status = run.status()
    assert status.error is not None
    assert (status.phase, status.error["code"]) == (Phase.FAILED, "source_unavailable"), run.log()
    assert 100 <= status.details["failed"] <= 100 + 16  # those that were under way
    assert status.details["marked"] == 0


@pytest.mark.parametrize("pictures", [range(701, 703)], indirect=True)
def test_jobs_that_cannot_be_meant_say_what_is_wrong(pictures: Pictures) -> None:
    """A query without URLs, and SQL that DuckDB does not know, fail before anything is asked for."""
    for query, code in (("SELECT 1 AS address", "job_invalid"), ("SELECT nothing FROM nowhere", "sql_invalid")):
        status = pictures.run(query=query).status()
        assert status.error is not None
        assert (status.phase, status.error["code"]) == (Phase.FAILED, code)

"""A keeper that finds its file torn makes it whole before anybody writes it, and says so everywhere; or says why it cannot."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.fileformat import HEADERS_BYTES, read_block_use, read_headers
from pondkeeper.errors import DatabaseUnreadable
from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess, wait_until

BLOCK_BYTES = 262_144
ROWS = "SELECT count(*) FROM t"


def tear_metadata(file: Path) -> None:
    """What a power cut amid a checkpoint does: pages of the blocks that it rewrites in place are of two kinds."""
    with file.open("r+b") as opened:
        use = read_block_use(opened.fileno(), read_headers(opened.fileno()))
        assert use is not None
        assert use.metadata
        for block in use.metadata:
            os.pwrite(opened.fileno(), os.urandom(4_096), HEADERS_BYTES + block * BLOCK_BYTES)


def commit_beside(file: Path) -> None:
    """Another program commits ten rows, and they stay in the WAL."""
    with duckdb.connect(str(file)) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("INSERT INTO t SELECT range FROM range(10)")


def written(keeper: KeeperProcess) -> None:
    """A table of a hundred rows, all of it in the newest snapshot."""
    client = keeper.client()
    client.execute("CREATE TABLE t (x INTEGER)")
    version = client.execute("INSERT INTO t SELECT range FROM range(100)").version
    assert client.query(ROWS, at_least=version).scalar() == 100


@pytest.mark.fault
def test_a_torn_file_is_made_whole_and_it_is_told(tmp_path: Path, start_keeper: StartKeeper) -> None:
    """Every row of file and WAL, by itself; log, status, metric and audit say what was done."""
    file = tmp_path / "pond.duckdb"
    keeper = start_keeper(file)
    written(keeper)
    assert keeper.stop() == 0
    commit_beside(file)
    tear_metadata(file)
    torn = file.read_bytes()
    with pytest.raises(duckdb.Error):  # the positive control
        duckdb.connect(str(file)).execute(ROWS)

    keeper.restart()
    client = keeper.client()
    version = client.execute("INSERT INTO t VALUES (1)").version
    assert client.query(ROWS, at_least=version).scalar() == 111
    status = client.status()
    assert status["problem"] is None
    assert status["counters"]["repairs"] == 1
    repair = status["repair"]
    assert repair["donor"].startswith("snapshot ")
    assert repair["blocks"] >= 1
    assert (keeper.database.turn / repair["kept_as"] / file.name).read_bytes() == torn
    assert "the database file was torn and has been repaired" in keeper.log()
    with keeper.http() as http:
        assert f'pondkeeper_repairs_total{{database="{file.stem}"}} 1.0' in http.get("/metrics").text

    def recorded() -> list[dict[str, object]]:
        lines = [line for path in (keeper.home.root / "audit").iterdir() for line in path.read_text().splitlines()]
        return [record for record in map(json.loads, lines) if record.get("request") == "repair"]

    [record] = wait_until(recorded, what="the record of the repair")
    assert record["database"] == file.stem
    assert "snapshot" in str(record["target"])

    keeper.kill9()
    keeper.restart()
    assert keeper.client().status()["repair"] == repair, "what was done is known after the next start"
    assert keeper.client().status()["counters"]["repairs"] == 0


@pytest.mark.fault
def test_what_is_beyond_repair_is_served_from_the_snapshot_and_not_written(tmp_path: Path, start_keeper: StartKeeper) -> None:
    """Without a copy of its last checkpoint the file stays as it is; a good one put in its place is served at once."""
    file = tmp_path / "pond.duckdb"
    keeper = start_keeper(file)
    written(keeper)
    assert keeper.stop() == 0
    with duckdb.connect(str(file)) as connection:
        connection.execute("INSERT INTO t SELECT range FROM range(10)")
    good = tmp_path / "good"
    shutil.copyfile(file, good)
    tear_metadata(file)
    torn = file.read_bytes()

    keeper.restart()
    client = keeper.client(retry_for_s=0.0)
    problem = wait_until(lambda: client.status()["problem"], timeout_s=60, what="the problem")
    assert problem["code"] == "database_unreadable"
    assert "no copy of its last checkpoint" in problem["message"]
    with pytest.raises(DatabaseUnreadable):
        client.execute("INSERT INTO t VALUES (1)")
    assert client.query(ROWS).scalar() == 100
    assert file.read_bytes() == torn

    good.replace(file)
    wait_until(lambda: client.status()["problem"] is None, timeout_s=60, what="the end of the problem")
    wait_until(lambda: client.query(ROWS).scalar() == 110, timeout_s=60, what="the rows of the good file")
    client.execute("INSERT INTO t VALUES (1)")


@pytest.mark.fault
def test_damage_that_is_met_later_is_mended_too(tmp_path: Path, start_keeper: StartKeeper) -> None:
    """A block of rows lost a page while nobody looked: the copier notices, and it is taken from the snapshot."""
    file = tmp_path / "pond.duckdb"
    keeper = start_keeper(file)
    client = keeper.client()
    version = client.execute("CREATE TABLE t AS SELECT (random() * 1e9)::INTEGER AS x FROM range(300000)").version
    right = client.query("SELECT sum(x)::VARCHAR FROM t", at_least=version).scalar()
    assert keeper.stop() == 0
    with file.open("r+b") as opened:
        use = read_block_use(opened.fileno(), read_headers(opened.fileno()))
        assert use is not None
        block = next(number for number in range(use.block_count) if use.is_used(number) and number not in use.metadata)
        os.pwrite(opened.fileno(), bytes(4_096), HEADERS_BYTES + block * BLOCK_BYTES + 8_192)

    keeper.restart()
    client = keeper.client()
    wait_until(lambda: client.status()["counters"]["repairs"] == 1, timeout_s=60, what="the repair")
    wait_until(lambda: client.status()["problem"] is None, timeout_s=60, what="the end of the problem")
    version = client.execute("CREATE TABLE after (x INTEGER)").version
    assert client.query("SELECT sum(x)::VARCHAR FROM t", at_least=version).scalar() == right

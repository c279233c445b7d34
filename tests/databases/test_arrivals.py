"""Databases that come into a served folder while the keeper runs, and those that go."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from pondkeeper.errors import DatabaseNotFound, PondkeeperError
from tests.conftest import StartKeeper
from tests.support.asking import Asked, SlowClient, code_of
from tests.support.keeper import KeeperProcess, wait_until


def make(file: Path, number: int = 1) -> Path:
    """A database with one row, made elsewhere and moved to its place."""
    made = file.with_suffix(".making")
    with duckdb.connect(str(made)) as connection:
        connection.execute("CREATE TABLE t AS SELECT ? AS n", [number])
    return made.rename(file)


def names(keeper: KeeperProcess) -> list[str]:
    return [each["name"] for each in keeper.client().databases()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one database."""
    folder = tmp_path / "tenants"
    folder.mkdir()
    make(folder / "first.duckdb")
    return folder


def test_a_new_database_is_served_without_a_restart(folder: Path, start_keeper: StartKeeper) -> None:
    """Read, written, seen by the command line; the others go on, also those that have a query on its way."""
    keeper = start_keeper(folder, "--readers", "2")
    running = SlowClient(keeper, "SELECT n, repeat('x', 100) FROM range(300_000) AS r(n)", 80, path="/v1/databases/first/query")
    running.response.read(1000)
    with pytest.raises(DatabaseNotFound):
        keeper.client().query("FROM t", database="second")
    make(folder / "second.duckdb", 2)
    wait_until(lambda: names(keeper) == ["first", "second"], what="a second database", timeout_s=30)
    for _ in range(8):  # more than there are readers: each of them may open it
        assert keeper.client().query("FROM t", database="second").rows == [[2]]
        assert keeper.client().query("FROM t", database="first").rows == [[1]]
    version = keeper.client().execute("INSERT INTO t VALUES (3)", database="second").version
    found = keeper.client().query("SELECT n FROM t ORDER BY n", database="second", at_least=version).rows
    status = keeper.cli("status").stdout
    ran = keeper.cli("run", "-d", "second", "--", "true")

    assert found == [[2], [3]]
    with running:
        received_bytes, whole = running.read_all()
    assert whole
    assert received_bytes > 30_000_000
    assert "second" in status
    assert ran.returncode == 0, ran.stderr


@pytest.mark.fault
def test_a_file_that_cannot_be_served_disturbs_nobody(folder: Path, start_keeper: StartKeeper) -> None:
    """No database: its own problem, said once and shown; a bad name or another keeper's: not served, said once."""
    keeper = start_keeper(folder, "--readers", "1")
    (folder / "a name with spaces.duckdb").write_bytes(b"")
    (folder / "nonsense.duckdb").write_bytes(b"no database at all" * 1000)
    wait_until(lambda: "nonsense" in names(keeper), what="the file", timeout_s=60)
    states = {each["name"]: each["state"] for each in keeper.client().databases()}
    outcome = Asked(lambda: keeper.client(retry_for_s=0).query("SELECT 1", database="nonsense", timeout_s=5)).outcome()

    assert states == {"first": "ready", "nonsense": "unavailable"}
    assert code_of(outcome) == "database_unreadable"
    assert keeper.is_ready()
    assert keeper.client().query("FROM t", database="first").rows == [[1]]
    wait_until(lambda: "a name with spaces" in keeper.log(), what="a word about the name")


@pytest.mark.fault
def test_a_database_that_goes_is_said_to_be_missing_and_comes_back(folder: Path, start_keeper: StartKeeper) -> None:
    """Reads go on from its last snapshot, writes are refused, and the file that is put back is served again."""
    keeper = start_keeper(folder, "--readers", "1")
    client = keeper.client(retry_for_s=0.0)
    assert client.query("FROM t", database="first").rows == [[1]]
    aside = Path(shutil.move(folder / "first.duckdb", folder / "first.aside"))
    problem = wait_until(lambda: client.status("first")["problem"], what="a problem", timeout_s=30)
    reads = client.query("FROM t", database="first").rows
    with pytest.raises(PondkeeperError) as refused:
        client.execute("INSERT INTO t VALUES (2)", database="first")
    aside.rename(folder / "first.duckdb")
    wait_until(lambda: client.status("first")["problem"] is None, what="an end of the problem", timeout_s=30)
    version = client.execute("INSERT INTO t VALUES (3)", database="first").version

    assert problem["code"] == refused.value.code == "database_missing"
    assert reads == [[1]]
    assert client.query("SELECT sum(n)::INT FROM t", database="first", at_least=version).scalar() == 4


def test_a_keeper_of_an_empty_folder_serves_the_first_that_comes(tmp_path: Path, start_keeper: StartKeeper) -> None:
    """An empty folder is served too; requests that name no database mean the only one."""
    folder = tmp_path / "empty"
    folder.mkdir()
    keeper = start_keeper(folder, "--readers", "1")
    with pytest.raises(DatabaseNotFound, match=r"no \.duckdb file"):
        keeper.client().query("SELECT 1")
    make(folder / "one.duckdb", 5)
    wait_until(lambda: names(keeper) == ["one"], what="the database", timeout_s=30)

    assert keeper.client().query("FROM t").rows == [[5]]


def test_a_served_file_does_not_bring_its_neighbours(tmp_path: Path, start_keeper: StartKeeper) -> None:
    """Who serves one file has named it; what else lies in its folder is none of the keeper's business."""
    keeper = start_keeper(make(tmp_path / "one.duckdb"), "--readers", "1")
    make(tmp_path / "two.duckdb")
    with KeeperProcess(tmp_path / "two.duckdb", "--readers", "1", home=tmp_path / "other" / ".pondkeeper") as other:
        assert names(other) == ["two"]
    assert names(keeper) == ["one"]

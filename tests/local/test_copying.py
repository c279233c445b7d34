"""Clones, differences and exports: of snapshots and versions, never of the live file; the same values on both sides."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pondkeeper.errors import DatabaseUnreadable, PondkeeperError, VersionNotArchived
from pondkeeper.files.paths import Home
from pondkeeper.local.copying import clone, compare, export, side
from pondkeeper.snapshots.holding import Wanted
from pondkeeper.workers import alone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.walls import try_walls
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import is_alive

SCHEMA = (
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR)",
    "INSERT INTO people SELECT range, 'p' || range FROM range(1000)",
    "CREATE SCHEMA odd",
    'CREATE TABLE odd."it\'s a ""table"". yes" ("a column" INTEGER, g INTEGER GENERATED ALWAYS AS ("a column" + 1))',
    'INSERT INTO odd."it\'s a ""table"". yes" VALUES (1), (2)',
    "CREATE TYPE mood AS ENUM ('well', 'ill')",
    "CREATE TABLE kinds (iv INTERVAL, tz TIMETZ, h HUGEINT, hs HUGEINT[], ns TIMESTAMP_NS, m MAP(VARCHAR, INTEGER), e mood, b BLOB)",
    (
        "INSERT INTO kinds VALUES (INTERVAL '3 months 1 microsecond', '12:00:00+01', 9007199254740993, [170141183460469231731687303715884105726], "
        "'2020-01-01 00:00:00.123456789', MAP {'a': 1}, 'ill', '\\x00\\xFF'::BLOB), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    ),
    "CREATE TABLE empty (x INTEGER)",
    "CREATE VIEW everybody AS SELECT name FROM people",
    "CREATE INDEX by_name ON people (name)",
    "CREATE SEQUENCE numbers START 7",
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper of `pond` with an archive, whose version 1 is the empty file."""
    folder = tmp_path_factory.mktemp("kept")
    with KeeperProcess(folder / "pond.duckdb", "--readers", "1") as keeper:
        client = keeper.local_client()
        version = 0
        for sql in SCHEMA:
            version = client.execute(sql).version
        client.query("SELECT 1", at_least=version)
        yield keeper


@pytest.fixture(scope="module")
def master(kept: KeeperProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that nobody changes; tests copy it."""
    file = tmp_path_factory.mktemp("master") / "pond.duckdb"
    cloned(kept, file)
    return file


def rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a plain DuckDB reads in a file."""
    with duckdb.connect(str(file)) as connection:
        return connection.execute(sql).fetchall()


def cloned(keeper: KeeperProcess, file: Path) -> dict[str, Any]:
    return clone(keeper.database, Wanted(), file)


def diff(keeper: KeeperProcess, left: str | Path, right: str | Path) -> dict[str, Any]:
    return compare(side(str(left), keeper.home), side(str(right), keeper.home))


def changes(found: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """How many rows of each table are only left, only right, changed."""
    return {each["table"]: (each["only_left"], each["only_right"], each["changed"]) for each in found["tables"]}


def test_a_clone_is_the_same_and_is_ones_own(kept: KeeperProcess, tmp_path: Path) -> None:
    """What is done to it is not done to the database; it has no second name and may be written by its owner."""
    file = tmp_path / "dev.duckdb"
    made = cloned(kept, file)
    assert (made["source"], made["tables"], made["file"]) == ("snapshot", 5, str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_nlink == 1
    found = diff(kept, "pond", file)
    assert (found["tables"], found["objects"]) == ([], [])
    assert found["tables_compared"] == 4
    assert rows(file, "DELETE FROM people WHERE id >= 990") == [(10,)]
    assert kept.local_client().query("SELECT count(*) FROM people").scalar() == 1000
    assert [each.name for each in tmp_path.iterdir()] == ["dev.duckdb"]


def test_a_clone_replaces_nothing(kept: KeeperProcess, tmp_path: Path) -> None:
    """A file of that name stays what it is."""
    file = tmp_path / "dev.duckdb"
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        cloned(kept, file)
    assert file.read_text() == "mine"
    assert os.listdir(tmp_path) == ["dev.duckdb"]


def test_a_damaged_snapshot_is_not_cloned(master: Path, tmp_path: Path) -> None:
    """One bit of each block; the undamaged file is the control."""
    home = tmp_path / ".pondkeeper" / "databases" / "pond" / "snapshots" / "000000000007"
    home.mkdir(parents=True)
    source = home / "pond.duckdb"
    shutil.copy(master, source)
    damaged = Home(tmp_path / ".pondkeeper").database(tmp_path / "pond.duckdb")
    assert clone(damaged, Wanted(), tmp_path / "a.duckdb")["version"] == 7
    data = bytearray(source.read_bytes())
    for at in range(12288 + 5000, len(data), 262144):
        data[at] ^= 4
    source.write_bytes(data)
    with pytest.raises(DatabaseUnreadable):
        clone(damaged, Wanted(), tmp_path / "b.duckdb")
    assert not (tmp_path / "b.duckdb").exists()


def test_diff_counts_what_is_changed_added_and_gone(kept: KeeperProcess, master: Path, tmp_path: Path) -> None:
    """Rows by primary key, tables, columns and views; the other way round it is the other way round."""
    file = shutil.copy(master, tmp_path / "dev.duckdb")
    with duckdb.connect(str(file)) as connection:
        connection.execute("DELETE FROM people WHERE id < 3")
        connection.execute("INSERT INTO people VALUES (5000, 'new'), (5001, 'new')")
        connection.execute("UPDATE people SET name = 'changed' WHERE id = 77")
        connection.execute("INSERT INTO empty VALUES (1), (1)")
        connection.execute("CREATE TABLE more AS SELECT 1 AS x")
        connection.execute("ALTER TABLE kinds ADD COLUMN extra INTEGER")
        connection.execute("CREATE OR REPLACE VIEW everybody AS SELECT id FROM people")
    found = diff(kept, "pond", file)
    tables = {each.pop("table"): each for each in found["tables"]}
    assert tables == {
        "people": {"difference": "rows", "columns": [], "only_left": 3, "only_right": 2, "changed": 1},
        "empty": {"difference": "rows", "columns": [], "only_left": 0, "only_right": 2, "changed": 0},
        "more": {"difference": "only_right", "columns": [], "only_left": 0, "only_right": 1, "changed": 0},
        "kinds": {"difference": "columns", "columns": ["extra"], "only_left": 0, "only_right": 0, "changed": 0},
    }
    assert found["objects"] == [{"kind": "view", "name": "everybody", "difference": "changed"}]
    assert changes(diff(kept, file, "pond"))["people"] == (2, 3, 1)


def test_diff_sees_values_that_change_places(kept: KeeperProcess, master: Path, tmp_path: Path) -> None:
    """The same values in the same columns, but in other rows: counts and sums are the same, the rows are not."""
    file = shutil.copy(master, tmp_path / "dev.duckdb")
    swap = "UPDATE people SET name = CASE id WHEN 1 THEN 'p2' ELSE 'p1' END WHERE id IN (1, 2)"
    assert rows(file, swap) == [(2,)]
    assert changes(diff(kept, "pond", file)) == {"people": (0, 0, 2)}


def test_diff_of_two_versions(kept: KeeperProcess) -> None:
    """NAME@VERSION; a version that nobody has is said."""
    client = kept.local_client()
    before = client.execute("INSERT INTO people VALUES (9000, 'for a while')").version
    client.take_snapshot(only_changes=True)
    after = client.execute("DELETE FROM people WHERE id = 9000").version
    client.query("SELECT 1", at_least=after)
    assert changes(diff(kept, f"pond@{before}", "pond")) == {"people": (1, 0, 0)}
    done = kept.cli("diff", "pond@4711", "pond")
    assert done.returncode == 2
    assert "version_not_archived" in done.stderr


def test_an_export_comes_back_exactly(kept: KeeperProcess, tmp_path: Path) -> None:
    """Moved to another place and imported, nothing differs: no type, no odd name, no microsecond."""
    done = kept.cli("export", "pond", str(tmp_path / "first"), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    tables = {each["table"]: each for each in made["tables"]}
    assert tables["people"]["rows"] == 1000
    assert set(tables["kinds"]["as_text"]) == {"iv", "tz"}
    assert all(each["inexact"] == [] for each in made["tables"])
    written = "".join(file.read_text() for file in (tmp_path / "first").glob("*.sql"))
    assert str(tmp_path) not in written
    assert "_pondkeeper" not in written + str(os.listdir(tmp_path / "first"))
    (tmp_path / "first").rename(tmp_path / "moved")
    copy = tmp_path / "copy.duckdb"
    rows(copy, f"IMPORT DATABASE '{tmp_path / 'moved'}'")
    assert diff(kept, "pond", copy)["tables"] == []
    assert rows(copy, "SELECT iv::VARCHAR, tz::VARCHAR, h, hs[1] FROM kinds WHERE iv IS NOT NULL") == [
        ("3 months 00:00:00.000001", "12:00:00+01", 9007199254740993, 170141183460469231731687303715884105726)
    ]


def test_an_export_that_fails_leaves_nothing(kept: KeeperProcess, tmp_path: Path) -> None:
    """Into a folder with something in it; of a version that is not there."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(FileExistsError):
        export(kept.database, Wanted(), tmp_path / "full")
    with pytest.raises(VersionNotArchived):
        export(kept.database, Wanted(version=4711), tmp_path / "none")
    assert os.listdir(tmp_path) == ["full"]
    assert os.listdir(tmp_path / "full") == ["mine"]


def test_people_read_what_was_done(kept: KeeperProcess, tmp_path: Path) -> None:
    """Data on stdout, the rest on stderr; what the engine may spill goes with the child."""
    own = tmp_path / "temp"
    own.mkdir()
    done = kept.cli("clone", "pond", str(tmp_path / "dev"), TMPDIR=str(own))
    assert done.stdout == f"{tmp_path / 'dev.duckdb'}\n"
    assert "version" in done.stderr
    assert os.listdir(own) == []
    done = kept.cli("diff", "pond", str(tmp_path / "dev.duckdb"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing differs" in done.stderr
    done = kept.cli("clone", "pond", str(tmp_path / "x.duckdb"), "--at", "yesterday")
    assert done.returncode == 2
    assert "no point in time" in done.stderr


def test_the_child_is_fenced(master: Path, tmp_path: Path) -> None:
    """It reads no file that it was not given. The control: it opens what it was given."""
    if why := try_walls()["files"]:
        pytest.skip(why)
    file = shutil.copy(master, tmp_path / "dev.duckdb")
    question = {
        "path": str(file), "memory_limit_bytes": 200_000_000, "threads": 1,
        "temp_directory": str(tmp_path / "temp"), "temp_limit_bytes": 1_000_000,
    }  # fmt: skip
    (tmp_path / "temp").mkdir()
    within = Fence((str(file),), (str(tmp_path / "temp"),))
    assert alone.ask("pondkeeper.engine.proving", question, within)["rows"]["people"] == 1000
    with pytest.raises(PondkeeperError):
        alone.ask("pondkeeper.engine.proving", question, Fence((), (str(tmp_path / "temp"),)))


def test_a_child_that_is_never_asked_ends_with_the_block() -> None:
    """Begun early, it has loaded what it needs; nothing of it is left when what it waited for has failed."""
    with alone.Child("pondkeeper.engine.proving") as child:
        pid = child._process.pid
        wait_until(lambda: "duckdb" in Path(f"/proc/{pid}/maps").read_text(), what="the engine in the child")
    assert not is_alive(pid)

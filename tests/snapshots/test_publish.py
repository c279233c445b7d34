"""Publishing: a snapshot has exactly what the writer had at its checkpoint, whatever happened before and meanwhile."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path

import duckdb
import pytest

from pondkeeper.errors import InvalidRequest
from pondkeeper.files.paths import DatabasePaths
from tests.snapshots.operators import CopierProcess, look, open_database, used_blocks_that_differ

TOTALS = (
    "select sum(balance), count(*), min(note) from account",
    "select count(*), coalesce(max(id), 0), count(*) filter (hash <> md5(id || pay)) from event",
    "select count(*), sum(hash(i, u))::varchar from fill",
    "select v from state",
)


class Bank:
    """A database with invariants, and a random mix of writes that keeps them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, chance: random.Random) -> None:
        self.connection, self.chance = connection, chance
        connection.execute("create table account as select range id, 1000::bigint balance, '' note from range(20000)")
        connection.execute("create table event(id bigint primary key, pay varchar, hash varchar)")
        connection.execute("create table fill as select range i, uuid() u, random() r from range(150000)")
        connection.execute("create table state(v int)")
        connection.execute("insert into state values (0)")
        connection.execute("create table indexed(a int, b varchar)")
        connection.execute("create index a_of_indexed on indexed(a)")

    def mix(self, round_number: int) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self.chance.choice([self.transfer, self.append, self.swap, self.delete, self.rebuild, self.index])()
        self.connection.execute("update state set v = ?", [round_number])

    def transfer(self) -> None:
        self.connection.execute("begin")
        for amount in (5, -5):
            row = self.chance.randrange(20000)
            self.connection.execute("update account set balance = balance + ? where id = ?", [amount, row])
        self.connection.execute("commit")

    def append(self) -> None:
        first = self.connection.execute("select coalesce(max(id), 0) + 1 from event").fetchall()[0][0]
        end = first + self.chance.choice([1, 100, 5000, 130000])
        self.connection.execute(
            f"insert into event select i, i || 'p', md5(i || (i || 'p')) from range({first}, {end}) t(i)"
        )

    def swap(self) -> None:
        """Two values change places: the checksum of their block stays what it was."""
        one, other = self.chance.sample(range(150000), 2)
        self.connection.execute(
            "update fill set u = (select f.u from fill f where f.i = case fill.i when $a then $b else $a end)"
            " where i in ($a, $b)",
            {"a": one, "b": other},
        )

    def delete(self) -> None:
        self.connection.execute("delete from event where id % 7 = ?", [self.chance.randrange(7)])

    def rebuild(self) -> None:
        name = f"part{self.chance.randrange(3)}"
        percent = self.chance.choice([1, 20])
        self.connection.execute(f"create or replace table {name} as select * from fill using sample {percent}%")

    def index(self) -> None:
        self.connection.execute("insert into indexed select range, 'x' from range(?)", [self.chance.choice([1, 20000])])


class Bulk:
    """A second connection that fills the file with whole row groups: DuckDB writes them into free and new blocks of the
    file long before they are committed, also while the copier copies."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, database: str) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute(f"use {database}")
        self._may_run, self._idle, self._end = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Bulk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end = True
        self._may_run.set()
        self._thread.join()

    def pause(self) -> None:
        """Wait until it has no transaction open: an older one would refuse checkpoints after an update."""
        self._may_run.clear()
        self._idle.wait()

    def resume(self) -> None:
        self._may_run.set()

    def _run(self) -> None:
        number = 0
        while not self._end:
            self._idle.set()
            self._may_run.wait()
            self._idle.clear()
            number += 1
            with contextlib.suppress(duckdb.Error):
                self._fill(number)

    def _fill(self, number: int) -> None:
        table = f"bulk{number % 3}"
        if number % 5 == 4:
            self._cursor.execute(f"drop table if exists {table}")
        self._cursor.execute(f"create table if not exists {table}(i bigint, u uuid, s varchar)")
        self._cursor.execute("begin")
        self._cursor.execute(f"insert into {table} select range, uuid(), md5(range::varchar) from range(130000)")
        self._cursor.execute("rollback" if number % 3 == 0 else "commit")


@pytest.mark.timeout(240)  # dozens of snapshots, each opened in a fresh process
@pytest.mark.parametrize(("block_size", "rounds"), [(262144, 14), (16384, 8)])
def test_each_snapshot_is_what_the_writer_had(
    paths: DatabasePaths, copier: CopierProcess, block_size: int, rounds: int
) -> None:
    """Under a random mix of writes, with bulk loads filling the file during the copy, every snapshot is exact."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    connection = open_database(paths, block_size=block_size)
    bank = Bank(connection, chance)
    methods = []
    with Bulk(connection, paths.name) as bulk:
        for version in range(1, rounds + 1):
            bulk.pause()
            bank.mix(version)
            expected = [list(connection.execute(query).fetchall()[0]) for query in TOTALS]
            bulk.resume()
            try:
                connection.execute("checkpoint")
            except duckdb.TransactionException:
                bulk.pause()
                connection.execute("checkpoint")
                bulk.resume()
            answer = copier.publish(version)
            methods.append(answer["method"])
            path = Path(answer["path"])
            assert used_blocks_that_differ(paths.file, path) == [], f"seed {seed}, version {version}, {methods}"
            found = [[str(value) for value in row] for row in look(path, *TOTALS)]
            assert found == [[str(value) for value in row] for row in expected], f"seed {seed}, version {version}"
    connection.close()
    assert methods.count("difference") >= rounds - 5, methods
    assert copier.verify(paths.snapshot(rounds))["damaged"] == []


def test_a_swap_of_values_is_copied(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """Two values of a column change places, which leaves DuckDB's block checksum as it was; the snapshot has it."""
    writer.execute("create table t as select range id, uuid() v from range(12000)")
    query = "select md5(string_agg(id || ':' || v, ',' order by id)) from t"
    seen = []
    for version in range(1, 9):
        swap = "update t set v = (select x.v from t x where x.id = case t.id when $a then $b else $a end) where id in ($a, $b)"
        writer.execute(swap, {"a": version * 10, "b": version * 10 + 3})
        writer.execute("checkpoint")
        answer = copier.publish(version)
        seen.append(answer["method"])
        assert look(Path(answer["path"]), query) == [list(writer.execute(query).fetchall()[0])], (version, seen)
    assert seen.count("difference") >= 6


def test_cost_follows_the_change(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """A one-row commit copies a few blocks of many, once a spare is there."""
    writer.execute("create table big as select range i, uuid() u, md5(range::varchar) s from range(2000000)")
    writer.execute("create table small(i int)")
    copied = []
    for version in range(1, 9):
        writer.execute("insert into small values (?)", [version])
        writer.execute("checkpoint")
        copied.append(copier.publish(version)["blocks_copied"])
    blocks = copier.publish(9)["blocks"]
    assert blocks > 200
    assert copied[0] >= blocks - 5
    assert max(copied[5:]) <= 12


def test_a_database_that_did_not_change_is_published_without_copying(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """A publish of the same state makes a new version, and copies no block once the versions have caught up."""
    writer.execute("create table t as select range i from range(100000)")
    writer.execute("checkpoint")
    answers = [copier.publish(version) for version in range(1, 8)]
    assert answers[-1]["blocks_copied"] == 0
    assert look(Path(answers[-1]["path"]), "select count(*) from t") == [[100000]]


def test_several_checkpoints_since_the_last_publish_are_compared(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """When checkpoints went by unseen, nothing is assumed: the bytes are compared, and the snapshot is exact."""
    writer.execute("create table t as select range id, uuid() v from range(12000)")
    query = "select md5(string_agg(id || ':' || v, ',' order by id)) from t"
    for version in range(1, 6):
        writer.execute("checkpoint")
        copier.publish(version)
    for round_number in range(3):
        for a in range(2 + round_number):
            swap = "update t set v = (select x.v from t x where x.id = case t.id when $a then $b else $a end) where id in ($a, $b)"
            writer.execute(swap, {"a": a * 10, "b": a * 10 + 3})
            writer.execute("checkpoint")
        answer = copier.publish(6 + round_number)
        assert answer["method"] == "compare"
        assert look(Path(answer["path"]), query) == [list(writer.execute(query).fetchall()[0])]
    writer.execute("insert into t values (1, uuid())")
    writer.execute("checkpoint")
    assert copier.publish(9, compare=True)["method"] == "compare"


def test_a_replaced_file_is_compared(paths: DatabasePaths, copier: CopierProcess) -> None:
    """Another file in the source's place is noticed, and its snapshot is that file's contents."""
    for version in range(1, 6):
        with contextlib.closing(open_database(paths)) as connection:
            connection.execute(f"create or replace table t as select {version} i")
            connection.execute("checkpoint")
        copier.publish(version)
    paths.file.unlink()
    with contextlib.closing(open_database(paths)) as connection:
        connection.execute("create table other as select 42 i")
        connection.execute("checkpoint")
    answer = copier.publish(6)
    assert answer["method"] in {"compare", "full"}
    assert look(Path(answer["path"]), "select i from other") == [[42]]


def test_publishing_a_version_again(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """The same version of the same state is answered again, of another state refused; versions only grow."""
    writer.execute("create table t as select 1 i")
    writer.execute("checkpoint")
    first = copier.publish(5)
    again = copier.publish(5)
    assert {**first, "elapsed_ms": 0, "retired": []} == {**again, "elapsed_ms": 0, "retired": []}
    writer.execute("insert into t values (2)")
    writer.execute("checkpoint")
    for version in (5, 4):
        with pytest.raises(InvalidRequest):
            copier.publish(version)
    assert copier.publish(6)["version"] == 6


def test_commits_after_the_checkpoint_wait_for_the_next_snapshot(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """What is only in the WAL is not in the snapshot, and the snapshot has no WAL of its own."""
    writer.execute("create table t as select 1 i")
    writer.execute("checkpoint")
    writer.execute("insert into t values (2)")
    assert paths.wal.stat().st_size > 0
    answer = copier.publish(1)
    assert look(Path(answer["path"]), "select count(*) from t") == [[1]]
    assert sorted(entry.name for entry in Path(answer["path"]).parent.iterdir()) == [
        "manifest.json",
        "warehouse.duckdb",
    ]
    writer.execute("checkpoint")
    assert look(Path(copier.publish(2)["path"]), "select count(*) from t") == [[2]]

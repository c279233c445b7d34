"""A batch of writes has the outcome of its writes one by one, however few transactions and statements it took."""

from __future__ import annotations

import threading
import time
from typing import Any

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from pondkeeper.engine.faults import translate
from pondkeeper.writer.applying import Applier
from tests.writer.bench import Bench, Statement

SCHEMA = """
    CREATE OR REPLACE TABLE t (k INTEGER PRIMARY KEY, v VARCHAR, n DECIMAL(5, 2), b BIT);
    CREATE OR REPLACE TABLE u (x TINYINT CHECK (x < 50), name VARCHAR NOT NULL, day DATE);
    DROP TABLE IF EXISTS made;
"""
KEY = some.integers(0, 9)
VALUE = some.sampled_from([None, "a", "", "é", 5, 1.5, True, 2**40, 2**70, [1, 2]])
NUMBER = some.sampled_from([None, 1, "2.5", 3.456, "no number", 1000, 10**10, False])
BITS = some.sampled_from([None, 5, 2**40, "101", "no bits"])


def statement(sql: str, *parameters: some.SearchStrategy[Any]) -> some.SearchStrategy[Statement]:
    """A statement with random parameters."""
    return some.tuples(*parameters).map(lambda values: (sql, list(values) or None))


INSERT_T = statement("INSERT INTO t VALUES (?, ?, ?, ?)", KEY, VALUE, NUMBER, BITS)
INSERT_U = statement("INSERT INTO u VALUES (?, ?, ?)", some.integers(40, 60), some.sampled_from(["a", None]),
                     some.sampled_from(["2026-11-20", "someday", None]))  # fmt: skip
CHANGES = some.one_of(
    INSERT_T,
    INSERT_T,
    INSERT_U,
    statement('insert into main."t" (b, k) values ($2, $1)', KEY, BITS),
    statement("INSERT INTO t (k) VALUES (?) ON CONFLICT DO NOTHING", KEY),
    statement("UPDATE t SET k = k + 1 WHERE k >= ?", KEY),
    statement("UPDATE t SET v = ?, n = n + 1 WHERE k = ?", VALUE, KEY),
    statement("DELETE FROM t WHERE k = ?", KEY),
    statement("INSERT INTO t SELECT k + 3, v FROM t WHERE k > ?", KEY),
    statement("UPDATE u SET x = x + 1"),
    statement("MERGE INTO t USING (SELECT ? AS k) s ON t.k = s.k WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (k) VALUES (s.k)", KEY),
    statement("INSERT INTO made VALUES (?)", KEY),
    statement("SELECT error('no')"),
    statement("INSERT INTO"),
)  # fmt: skip
ALONE = some.one_of(
    some.lists(CHANGES, min_size=2, max_size=3),
    statement("CREATE TABLE made (i INTEGER)").map(lambda one: [one]),
    statement("ALTER TABLE u ADD COLUMN IF NOT EXISTS more INTEGER").map(lambda one: [one]),
)
RUN_OF_INSERTS = some.lists(some.one_of(INSERT_T, INSERT_T, INSERT_U).map(lambda one: [one]), min_size=4, max_size=12)
BATCHES = some.lists(
    some.one_of(CHANGES.map(lambda one: [[one]]), RUN_OF_INSERTS, ALONE.map(lambda alone: [alone])), min_size=1, max_size=12
).map(lambda parts: [write for part in parts for write in part])


def one_by_one(plain: duckdb.DuckDBPyConnection, write: list[Statement]) -> tuple[str, Any]:
    """What plain DuckDB does with a write in a transaction of its own: the rows changed, or the code of the error."""
    plain.execute("BEGIN")
    try:
        rows = [rows_changed(plain.execute(sql, parameters)) for sql, parameters in write]
        plain.execute("COMMIT")
    except duckdb.Error as error:
        try:
            plain.execute("ROLLBACK")
        except duckdb.Error:
            pass
        return "refused", translate(error).code
    return "applied", rows


def rows_changed(executed: duckdb.DuckDBPyConnection) -> int:
    rows = executed.fetchall()
    return int(rows[0][0]) if rows else 0


def told(answer: dict[str, Any]) -> tuple[str, Any]:
    return answer["kind"], answer["rows_changed"] if answer["kind"] == "applied" else answer["error"]["code"]


TABLES = ("SELECT * FROM t", "SELECT * FROM u", "SELECT table_name FROM duckdb_tables() ORDER BY ALL")


@given(BATCHES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_means_what_its_writes_mean_one_by_one(bench: Bench, writes: list[list[Statement]]) -> None:
    """Random batches with broken keys, types, checks and missing tables: same answers, same tables, same order of rows."""
    bench.run(SCHEMA)
    answers = bench.apply(bench.batch(writes))

    with duckdb.connect() as plain:
        plain.execute(SCHEMA)
        expected = [one_by_one(plain, write) for write in writes]
        assert [told(answers[number]) for number in range(1, len(writes) + 1)] == expected
        for query in TABLES:
            assert bench.run(query) == plain.execute(query).fetchall(), query


def test_equal_inserts_share_one_commit(bench: Bench) -> None:
    """A hundred rows, one of them twice: a few commits, ninety-nine rows in order, and one refusal with its own error."""
    bench.run(SCHEMA)
    keys = [*range(50), 7, *range(50, 100)]
    writes: list[list[Statement]] = [[("INSERT INTO t (k, v) VALUES (?, ?)", [key, "x"])] for key in keys]
    answers = bench.apply(bench.batch(writes))

    refused = [number for number, answer in answers.items() if answer["kind"] == "refused"]
    assert refused == [51]
    assert "duplicate key" in answers[51]["error"]["message"].lower()
    assert len(bench.commits) < 20
    assert bench.run("SELECT k FROM t") == [(key,) for key in range(100)]

    bench.apply(bench.batch([[("DELETE FROM t WHERE k = ?", [key])] for key in range(100)]))
    assert len(bench.commits) < 50  # one, on a machine that has nothing else to do


def test_a_commit_has_the_version_that_is_next_after_it(bench: Bench) -> None:
    """The version is asked after the commit: a checkpoint that began meanwhile need not have it."""
    bench.run(SCHEMA)
    bench.version = 41
    batch = bench.batch([[("INSERT INTO t (k) VALUES (?)", [1])]])

    def send(frame: dict[str, Any]) -> None:
        bench.version = 42

    Applier(send, bench, 60).apply_next(bench.session, batch)
    assert bench.answers()[1]["version"] == 42


def test_a_slow_statement_does_not_hold_up_those_before_it(bench: Bench) -> None:
    """A statement that takes long in a group is taken out of it: the others are committed, then it runs alone."""
    bench.run(SCHEMA)
    slow = "INSERT INTO t (k) SELECT 5 FROM range(2000000) a, range(2000) b HAVING sum(a.range * b.range) > 0"
    writes: list[list[Statement]] = [[("INSERT INTO t (k) VALUES (?)", [key])] for key in (1, 2)]
    batch = bench.batch([*writes, [(slow, None)], [("INSERT INTO t (k) VALUES (?)", [3])]])
    threading.Thread(target=lambda: (until(lambda: bool(bench.commits)), time.sleep(0.3), batch.cancel(3))).start()
    answers = bench.apply(batch)

    assert [told(answers[number])[0] for number in (1, 2, 3, 4)] == ["applied", "applied", "refused", "applied"]
    assert answers[3]["error"]["code"] == "query_cancelled"
    assert bench.commits == [[1, 2], [4]]


def test_a_cancelled_member_is_left_out_and_the_others_are_not(bench: Bench) -> None:
    """One that waits is answered at once, before its turn; the rest of the batch goes on as if it had not been there."""
    bench.run(SCHEMA)
    batch = bench.batch([[("INSERT INTO t (k) VALUES (?)", [key])] for key in range(6)])
    batch.cancel(3)
    assert told(bench.answers()[3]) == ("refused", "query_cancelled")
    answers = bench.apply(batch)

    assert sum(answer["kind"] == "applied" for answer in answers.values()) == 5
    assert bench.run("SELECT k FROM t") == [(0,), (1,), (3,), (4,), (5,)]


def until(condition: Any) -> None:
    give_up_at = time.monotonic() + 30
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.005)

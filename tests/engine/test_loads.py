"""Loads of jobs: each step does what it says, tables drift only as far as they may, the job's state is in the same commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pondkeeper.engine import rowgroups
from pondkeeper.engine.loads.carrying import Carried, Carrier
from pondkeeper.engine.loads.plan import AUTOMATIC, Expected, LoadPlan, made
from pondkeeper.engine.loads.state import MOST_LOADS, state_of
from pondkeeper.engine.loads.steps import Append, Delete, KeepOnly, Replace, Run, Step, Truncate, Update, Upsert
from pondkeeper.errors import (
    BodyInvalid,
    ColumnsDiffer,
    InvalidRequest,
    JobStateChanged,
    SchemaDrifted,
    TableNotFound,
)

Rows = list[dict[str, Any]]
Row = tuple[int | None, str | None]
Stage = Callable[[str], list[str]]


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """The rows of a query as a staged file."""
    numbers = iter(range(1000))

    def write(query: str) -> list[str]:
        path = tmp_path / f"{next(numbers)}.parquet"
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
        return [str(path)]

    return write


def carried_out(database: duckdb.DuckDBPyConnection, plan: LoadPlan) -> Carried:
    """The load, committed; as the writer gets it: over the wire."""
    with database.cursor() as cursor:

        def execute(sql: str, parameters: Any) -> int:
            found = cursor.execute(sql, parameters).fetchall()
            return int(found[0][0]) if found else 0

        cursor.begin()
        try:
            carried = Carrier(cursor, LoadPlan.from_wire(plan.to_wire()), execute).run()
        except BaseException:
            cursor.rollback()
            raise
        cursor.commit()
        return carried


def load(database: duckdb.DuckDBPyConnection, *steps: Step, identity: str = "1", **more: Any) -> Carried:
    return carried_out(database, made("shop", identity, steps, **more))


def rows_of(database: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return database.execute(query).fetchall()


# What steps do


def staged_rows(folder: Path, rows: list[Row], number: int) -> str:
    path = folder / f"rows-{number}.parquet"
    columns = {"id": pa.array([row[0] for row in rows], pa.int32()), "v": pa.array([row[1] for row in rows], pa.string())}
    pq.write_table(pa.table(columns), path)
    return str(path)


def expected_after(table: list[Row], word: str, rows: list[Row]) -> tuple[list[Row], int]:
    """What a step makes of a table, and what it counts, told in Python."""
    keys = {row[0] for row in rows}
    last = {row[0]: row for row in rows}
    match word:
        case "replace":
            return list(rows), len(rows)
        case "append":
            return table + rows, len(rows)
        case "upsert":
            there = {row[0] for row in table}
            new = [row for key, row in last.items() if key not in there]
            changed = [last.get(row[0], row) for row in table]
            return changed + new, sum(row[0] in keys for row in table) + len(new)
        case "update":
            return [last.get(row[0], row) for row in table], sum(row[0] in keys for row in table)
        case "delete":
            kept = [row for row in table if row[0] not in keys]
        case "keep_only":
            kept = [row for row in table if row[0] in keys]
        case "one_each":
            kept, left = [], [row[0] for row in rows]
            for row in table:
                if row[0] in left:
                    left.remove(row[0])
                else:
                    kept.append(row)
        case _:
            kept = []
    return kept, len(table) - len(kept)


def step_of(word: str, files: list[str]) -> Step:
    return {
        "replace": Replace("t", files),
        "append": Append("t", files),
        "upsert": Upsert("t", files, ["ID"]),
        "update": Update("t", files, ["id"]),
        "delete": Delete("main.t", files, ["id"]),
        "one_each": Delete("t", files, ["id"], one_each=True),
        "keep_only": KeepOnly("t", files, ["id"]),
        "truncate": Truncate("t"),
    }[word]


a_row = st.tuples(st.none() | st.integers(0, 5), st.none() | st.sampled_from(["a", "b", "c"]))
a_step = st.tuples(
    st.sampled_from(["replace", "append", "upsert", "update", "delete", "one_each", "keep_only", "truncate"]),
    st.lists(a_row, max_size=8),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(a_row, max_size=8), st.lists(a_step, min_size=1, max_size=4))
def test_steps_mean_what_they_say(tmp_path: Path, before: list[Row], steps: list[tuple[str, list[Row]]]) -> None:
    """Any list of steps on any rows, twins and NULLs among them, leaves and counts what plain Python says."""
    expected, counts = list(before), [len(before)]
    plan: list[Step] = [Replace("t", [staged_rows(tmp_path, before, 0)])]
    for number, (word, rows) in enumerate(steps, 1):
        plan.append(step_of(word, [staged_rows(tmp_path, rows, number)]))
        expected, count = expected_after(expected, word, rows)
        counts.append(count)
    with duckdb.connect() as database:
        carried = load(database, *plan)
        found = rows_of(database, "SELECT id, v FROM t")
    # Of twins in the table it is not said which of them one_each takes: what is left is compared by key there.
    is_exact = not any(word == "one_each" for word, _ in steps)
    shown = (lambda row: repr(row)) if is_exact else (lambda row: repr(row[0]))
    assert sorted(map(shown, found)) == sorted(map(shown, expected))
    assert not is_exact or carried.counts == counts


def test_a_primary_key_stays_and_is_no_hindrance(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """A table with constraints is replaced, and its rows deleted and put back, in one transaction; defaults fill in."""
    database.execute("CREATE TABLE p (id BIGINT PRIMARY KEY, name VARCHAR NOT NULL, k INTEGER DEFAULT 7)")
    files = stage("SELECT i AS id, 'n' || i AS name FROM range(3000) t(i)")
    load(database, Replace("p", files), identity="1")
    load(database, Replace("p", files), Delete("p", files, ["id"]), Upsert("p", files, ["id"]), identity="2")
    assert rows_of(database, "SELECT count(*), sum(id), sum(k) FROM p") == [(3000, 4498500, 21000)]
    with pytest.raises(duckdb.ConstraintException):
        load(database, Append("p", files), identity="3")


def test_only_the_columns_that_came_are_changed(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """What a step does not mention stays as it is: the unchanged columns of a change."""
    load(database, Replace("t", stage("SELECT i AS id, 'a' AS a, 'b' AS b FROM range(3) t(i)")))
    load(database, Upsert("t", stage("SELECT 1 AS id, 'A' AS a UNION ALL SELECT 9, 'new'"), ["id"]), identity="2")
    load(database, Update("t", stage("SELECT 2 AS id, 'B' AS b UNION ALL SELECT 8, 'nobody'"), ["id"]), identity="3")
    assert rows_of(database, "FROM t ORDER BY id") == [(0, "a", "b"), (1, "A", "b"), (2, "a", "B"), (9, "new", None)]


def test_statements_of_the_job_come_in_their_order(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """A table that a statement makes is there for the rows after it, and so on."""
    one, two = stage("SELECT 1 AS id"), stage("SELECT 2 AS id, 'x' AS new")
    carried = load(
        database,
        Run("CREATE TABLE made (id INTEGER)"),
        Append("made", one),
        Run("INSERT INTO made SELECT id + $more FROM made", {"more": 10}, table="made"),
        Append("made", two),
        Run("DELETE FROM made WHERE id = ?", [11], table="made"),
    )
    assert rows_of(database, "FROM made ORDER BY id") == [(1, None), (2, "x")]
    assert carried.counts[1:] == [1, 1, 1, 1]


def test_several_files_are_one_table(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Their columns may come in another order and case, and a type may be wider in one of them."""
    files = stage("SELECT 1::INTEGER AS id, 'a' AS name") + stage("SELECT 'b' AS NAME, 5000000000 AS ID")
    load(database, Replace("t", files))
    assert rows_of(database, "SELECT id, name, typeof(id) FROM t ORDER BY id") == [(1, "a", "BIGINT"), (5000000000, "b", "BIGINT")]
    with pytest.raises(BodyInvalid, match="differ in their columns: other"):
        load(database, Replace("t", files + stage("SELECT 1 AS id, 'x' AS name, 2 AS other")), identity="2")


def test_files_that_end_within_a_row_group_leave_none_that_is_not_full(stage: Stage, tmp_path: Path) -> None:
    """Or the CHECKPOINT after the load packs all of them anew; and the rows stay in their order."""
    per_file, count = 127_000, 4
    query = "SELECT i, md5(i::VARCHAR)::UUID AS u, [i::VARCHAR] AS l, {{'a': i}}::JSON AS j FROM range({}, {}) t(i)"
    files = [path for at in range(count) for path in stage(query.format(at * per_file, (at + 1) * per_file))]
    with duckdb.connect(str(tmp_path / "pond.duckdb")) as database:
        carried_out(database, made("j", "1", [Replace("t", files)]))
        segments = "FROM pragma_storage_info('t') WHERE column_name = 'i' AND segment_type = 'BIGINT'"
        groups = database.sql(f"SELECT sum(count) {segments} GROUP BY row_group_id ORDER BY row_group_id").fetchall()
        assert [rows for (rows,) in groups[:-1]] == [122_880] * (per_file * count // 122_880)
        wrong = "i <> rowid OR u <> md5(i::VARCHAR)::UUID OR l <> [i::VARCHAR] OR j <> {'a': i}::JSON"
        assert database.sql(f"SELECT count(*), count(*) FILTER (WHERE {wrong}) FROM t").fetchall() == [(per_file * count, 0)]


@pytest.mark.parametrize("limit_bytes", [0, 1_000, 1 << 26])
def test_wide_rows_are_not_joined_and_none_is_lost(limit_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowgroups, "_JOINED_BYTES", limit_bytes)
    monkeypatch.setattr(rowgroups, "ROW_GROUP_ROWS", 100)
    sizes = [70, 0, 250, 100, 30, 1]
    table = pa.table({"i": range(sum(sizes))})
    given = iter([table.slice(sum(sizes[:at]), size).combine_chunks().to_batches() for at, size in enumerate(sizes)])
    made_of_them = list(rowgroups.in_row_groups(batch for batches in given for batch in batches))
    assert pa.Table.from_batches(made_of_them) == table
    if limit_bytes > 1_000:
        assert [batch.num_rows for batch in made_of_them] == [100, 100, 100, 100, 51]


def test_a_missing_table_is_nothing_to_take_from(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Deleting from, emptying and updating a table that is not there does nothing; to make it, a step must say so."""
    files = stage("SELECT 1 AS id")
    steps = [Truncate("no"), Delete("no", files, ["id"]), KeepOnly("no", files, ["id"]), Update("no", files, ["id"])]
    assert load(database, *steps).counts == [0, 0, 0, 0]
    with pytest.raises(TableNotFound):
        load(database, Append("no", files, create=False), identity="2")
    assert load(database, Append('"na.me"."o.n"', files), identity="3").counts == [1]
    assert rows_of(database, 'FROM "na.me"."o.n"') == [(1,)]


def test_all_or_nothing(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """A step that fails takes the steps before it, and the state, back with it."""
    load(database, Replace("t", stage("SELECT 1 AS id")), state={"at": 1})
    broken = stage("SELECT 'no number' AS id")
    with pytest.raises(duckdb.ConversionException):
        load(database, Truncate("t"), Append("new", stage("SELECT 1 AS id")), Append("t", broken), identity="2", state={"at": 2})
    assert rows_of(database, "FROM t") == [(1,)]
    assert state_of(database, "shop") == {"at": 1}
    assert rows_of(database, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'new'") == [(0,)]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (lambda files: Upsert("t", files, ["other"]), ColumnsDiffer),
        (lambda files: Upsert("t", files, []), ColumnsDiffer),
        (lambda files: Replace("t", []), InvalidRequest),
        (lambda files: KeepOnly("t", [], ["id"]), InvalidRequest),
        (lambda files: Append("_pondkeeper.t", files), InvalidRequest),
        (lambda files: Append("a.b.c", files), InvalidRequest),
        (lambda files: Append("t", files, types={"id": "NO_TYPE"}), InvalidRequest),
        (lambda files: Append("t", ["/no/such/file"]), BodyInvalid),
    ],
)
def test_what_no_step_may_be(
    database: duckdb.DuckDBPyConnection, stage: Stage, step: Callable[[list[str]], Step], error: type[Exception]
) -> None:
    """A step that can mean nothing, or more than its author thought, is refused."""
    load(database, Replace("t", stage("SELECT 1 AS id")))
    with pytest.raises(error):
        load(database, step(stage("SELECT 2 AS id")), identity="2")
    assert rows_of(database, "FROM t") == [(1,)]


def test_a_link_is_not_followed(database: duckdb.DuckDBPyConnection, stage: Stage, tmp_path: Path) -> None:
    """Who opens and closes another descriptor of the database drops DuckDB's lock on it: a link could lead there."""
    [real] = stage("SELECT 1 AS id")
    link = tmp_path / "link.parquet"
    link.symlink_to(real)
    with pytest.raises(BodyInvalid, match="no plain file"):
        load(database, Append("t", [link]))
    assert load(database, Append("t", [real])).counts == [1]


# Types


def test_types_that_parquet_cannot_say_are_named(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Staged as text with their types named, all of DuckDB's values arrive exactly; an INTERVAL of Parquet is refused."""
    types = {
        "lasts": "INTERVAL",
        "big": "HUGEINT",
        "clock": "TIME WITH TIME ZONE",
        "bits": "BIT",
        "mood": "ENUM('sad', 'ok')",
        "list": "INTEGER[]",
    }
    values = "'1 month 2 days 00:00:00.000001', '170141183460469231731687303715884105727', '12:00:00.5+05:30', '0101', 'ok', '[1, null]'"
    load(database, Replace("t", stage(f"SELECT * FROM (VALUES ({values})) AS t(lasts, big, clock, bits, mood, list)"), types=types))
    shown = "lasts::VARCHAR, big::VARCHAR, clock::VARCHAR, bits::VARCHAR, mood::VARCHAR, list::VARCHAR"
    assert rows_of(database, f"SELECT {shown} FROM t") == [
        ("1 month 2 days 00:00:00.000001", "170141183460469231731687303715884105727", "12:00:00.5+05:30", "0101", "ok", "[1, NULL]")
    ]
    with pytest.raises(BodyInvalid, match="INTERVAL"):
        load(database, Append("t", stage("SELECT INTERVAL 1 DAY AS lasts")), identity="2")


def test_types_that_parquet_has_arrive_as_they_are(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """UUIDs, JSON, decimals, moments and nested values need no word."""
    query = """SELECT '00000000-0000-0000-0000-00000000002a'::UUID AS u, '{"a": 1}'::JSON AS j, 1.10::DECIMAL(38, 10) AS d,
        TIMESTAMP '2024-02-29 12:34:56.000001' AS m, [1, NULL] AS l, {'a': 1, 'b': 'x'} AS s, MAP {'k': 1.5} AS p, 'x'::BLOB AS b,
        ['00000000-0000-0000-0000-00000000002a'::UUID] AS lu, {'j': ['[1]'::JSON]} AS sj"""
    load(database, Replace("t", stage(query)))
    kinds = rows_of(database, "SELECT column_type FROM (DESCRIBE t)")
    assert [kind for (kind,) in kinds] == [
        "UUID", "JSON", "DECIMAL(38,10)", "TIMESTAMP", "INTEGER[]", "STRUCT(a INTEGER, b VARCHAR)", "MAP(VARCHAR, DECIMAL(2,1))", "BLOB",
        "UUID[]", "STRUCT(j JSON[])",
    ]  # fmt: skip
    assert rows_of(database, f"SELECT count(*) FROM (FROM t INTERSECT {query})") == [(1,)]


# Drift


def test_allow_changes_the_table(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """New columns are added, a type that is too narrow is widened, and who loads is told so."""
    load(database, Replace("t", stage("SELECT 1::INTEGER AS id, 2::INTEGER AS n")))
    changed = load(database, Append("t", stage("SELECT 5000000000 AS id, 'x' AS new")), identity="2")
    assert changed.changes == ["t: column 'id' becomes BIGINT, it was INTEGER", "t: column 'new' VARCHAR is new"]
    assert rows_of(database, "FROM t ORDER BY id") == [(1, 2, None), (5000000000, None, "x")]
    assert load(database, Append("t", stage("SELECT 3::SMALLINT AS id, 4::TINYINT AS n")), identity="3").changes == []


def test_a_table_is_changed_before_its_rows_are(
    database: duckdb.DuckDBPyConnection, stage: Stage, duckdb_version: tuple[int, ...]
) -> None:
    """Trap: DuckDB 1.5 does not commit a table that was changed after its rows were, in one transaction."""
    load(database, Replace("t", stage("SELECT i AS id FROM range(5) t(i)")))
    load(database, Delete("t", stage("SELECT 1 AS id"), ["id"]), Upsert("t", stage("SELECT 2 AS id, 'x' AS new"), ["id"]), identity="2")
    assert rows_of(database, "SELECT count(*), count(new) FROM t") == [(4, 1)]
    with database.cursor() as control:
        control.begin()
        for statement in ("DELETE FROM t WHERE id = 3", "ALTER TABLE t ADD COLUMN later INTEGER", "INSERT INTO t (id) VALUES (7)"):
            control.execute(statement)
        if duckdb_version < (2,):
            with pytest.raises(duckdb.TransactionException):
                control.commit()


@pytest.mark.parametrize(
    ("query", "change"),
    [
        ("SELECT 1 AS id, 'a' AS name, 2 AS new", "column 'new' INTEGER is new"),
        ("SELECT 1 AS id", "column 'name' is missing"),
        ("SELECT 5000000000 AS id, 'a' AS name", "column 'id' becomes BIGINT, it was INTEGER"),
    ],
)
def test_freeze_refuses_each_difference(
    database: duckdb.DuckDBPyConnection, stage: Stage, query: str, change: str
) -> None:
    """What is new, missing or too wide is refused, with what it is; what fits is loaded."""
    load(database, Replace("t", stage("SELECT 1::INTEGER AS id, 'a' AS name"), drift="freeze"))
    with pytest.raises(SchemaDrifted) as refused:
        load(database, Append("t", stage(query), drift="freeze"), identity="2")
    assert refused.value.details == {"table": "t", "changes": [change]}
    assert load(database, Append("t", stage("SELECT 2::SMALLINT AS id, 'b' AS name"), drift="freeze"), identity="3").counts == [1]


def test_ask_lets_through_what_was_accepted_and_nothing_else(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """The digest of a change names just this change of just this table."""
    load(database, Replace("t", stage("SELECT 1 AS id")), Replace("other", stage("SELECT 1 AS id")))
    wider = stage("SELECT 2 AS id, 'x' AS new")
    with pytest.raises(SchemaDrifted) as refused:
        load(database, Append("t", wider, drift="ask"), identity="2")
    accepted = [refused.value.details["digest"]]
    for step in (Append("other", wider, drift="ask"), Append("t", stage("SELECT 2 AS id, 3 AS new"), drift="ask")):
        with pytest.raises(SchemaDrifted):
            load(database, step, identity="3", accepted=accepted)
    assert load(database, Append("t", wider, drift="ask"), identity="4", accepted=accepted).counts == [1]


def test_what_no_type_holds_both_is_refused_but_for_a_whole_table(
    database: duckdb.DuckDBPyConnection, stage: Stage
) -> None:
    """A column cannot be a number and a list; a table that is replaced becomes what the source is."""
    load(database, Replace("t", stage("SELECT 1 AS v")))
    lists = stage("SELECT [1] AS v")
    with pytest.raises(SchemaDrifted, match="cannot hold both"):
        load(database, Append("t", lists), identity="2")
    load(database, Replace("t", lists), identity="3")
    assert rows_of(database, "FROM t") == [([1],)]


def test_text_is_read_as_what_the_column_is(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """A column of text does not make a column of dates one of text."""
    database.execute("CREATE TABLE t (day DATE)")
    assert load(database, Append("t", stage("SELECT '2024-02-29' AS day"))).changes == []
    assert rows_of(database, "SELECT day::VARCHAR FROM t") == [("2024-02-29",)]


def test_a_column_that_must_have_a_value_is_never_left_out(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Whatever the setting: there is nothing that could be put there. An upsert may leave it out, to change rows only."""
    database.execute("CREATE TABLE t (id INTEGER, must INTEGER NOT NULL, made INTEGER GENERATED ALWAYS AS (id + 1))")
    database.execute("INSERT INTO t (id, must) VALUES (1, 1)")
    with pytest.raises(ColumnsDiffer, match="must"):
        load(database, Append("t", stage("SELECT 2 AS id")))
    with pytest.raises(ColumnsDiffer, match="generated"):
        load(database, Append("t", stage("SELECT 2 AS id, 2 AS must, 2 AS made")))
    assert load(database, Update("t", stage("SELECT 1 AS id, 5 AS must"), ["id"])).counts == [1]


# Once, and with the state


def test_a_load_is_applied_once(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """The same identity again does nothing and counts what it counted; another one is another load (the control)."""
    files = stage("SELECT i AS id FROM range(3) t(i)")
    for identity, rows in (("a", 3), ("a", 3), ("b", 6), ("a", 6)):
        assert load(database, Append("t", files), identity=identity).counts == [3]
        assert rows_of(database, "SELECT count(*) FROM t") == [(rows,)]


def test_the_last_loads_are_remembered(database: duckdb.DuckDBPyConnection) -> None:
    """As many as there may be between two looks at the state; what nobody asks for again is not among them."""
    for number in range(MOST_LOADS + 2):
        load(database, identity=str(number))
        load(database, identity=f"{AUTOMATIC}{number}")
    [(loads,)] = rows_of(database, "SELECT json_keys(loads) FROM _pondkeeper.job_state")
    assert loads == [str(number) for number in range(2, MOST_LOADS + 2)]


def test_the_state_is_kept_until_it_is_set_again(database: duckdb.DuckDBPyConnection) -> None:
    """Each job has its own; a load without a state leaves it."""
    assert state_of(database, "shop") is None
    load(database, identity="1", state={"cursor": "2024-02-29", "seen": [1, 2]})
    load(database, identity="2")
    carried_out(database, made("other", "1", [], {"mine": True}))
    assert state_of(database, "shop") == {"cursor": "2024-02-29", "seen": [1, 2]}
    assert state_of(database, "other") == {"mine": True}


def test_a_load_may_insist_on_the_state_before_it(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """What a killed attempt left in the queue comes first; the load of the next attempt is then not put on top."""
    files = stage("SELECT 1 AS id")
    load(database, Append("t", files), identity="1", state={"at": 1}, expected=Expected(None))
    load(database, Append("t", files), identity="2", state={"at": 2}, expected=Expected({"at": 1}))
    for expected in (Expected(None), Expected({"at": 1})):
        with pytest.raises(JobStateChanged):
            load(database, Append("t", files), identity="3", expected=expected)
    assert load(database, Append("t", files), identity="2", expected=Expected({"at": 1})).counts == [1]
    assert rows_of(database, "SELECT count(*) FROM t") == [(2,)]


@pytest.mark.parametrize(
    "wire",
    [
        {"job": "", "identity": "1", "steps": []},
        {"job": "shop", "identity": "1", "steps": [{"step": "explode", "table": "t"}]},
        {"job": "shop", "identity": "1", "steps": [{"step": "append", "table": "t"}]},
        {"job": "shop", "identity": "1", "steps": [{"step": "truncate", "table": "t", "files": []}]},
        {"job": "shop", "identity": "1", "steps": [{"step": "append", "table": 1, "files": []}]},
        {"job": "shop", "identity": "1", "steps": [{"step": "append", "table": "t", "files": [], "drift": "maybe"}]},
        {"job": "shop", "identity": "1", "steps": [], "more": 1},
        {"job": "shop", "identity": "x" * 200, "steps": []},
        [],
    ],
)
def test_a_load_of_another_shape_is_refused(wire: Any) -> None:
    """Before anything of it reaches the writer."""
    with pytest.raises(InvalidRequest):
        LoadPlan.from_wire(wire)

"""Each format with each mode: what is taken, what is refused, and where it says that the fault is."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pondkeeper.engine.intake.sources import delimited, ndjson
from pondkeeper.errors import (
    BodyInvalid,
    BodyTooLarge,
    ColumnsDiffer,
    InvalidRequest,
    PondkeeperError,
    RowsInvalid,
    TableChanged,
    TableNotFound,
)
from tests.staging.conftest import Ground, as_arrow, as_parquet

FORMATS = ["ndjson", "json", "csv", "arrow", "parquet"]


def body(form: str, rows: list[tuple[Any, Any]], names: tuple[str, str] = ("a", "b")) -> bytes:
    """Two columns in a format; values that are texts of numbers stay texts."""
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if form == "ndjson":
        return b"".join(json.dumps(each).encode() + b"\n" for each in objects)
    if form == "json":
        return json.dumps(objects).encode()
    if form == "csv":
        cells = [",".join("" if value is None else f'"{value}"' for value in row) for row in rows]
        return "\r\n".join([",".join(names), *cells, ""]).encode()
    first = pa.string() if any(isinstance(row[0], str) for row in rows) else pa.int64()
    table = pa.table({names[0]: pa.array([row[0] for row in rows], first), names[1]: [row[1] for row in rows]})
    return as_arrow(table) if form == "arrow" else as_parquet(table)


def rejected(ground: Ground) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ground.rejects.read_text().splitlines()]


# Modes


@pytest.mark.parametrize("form", FORMATS)
def test_append(ground: Ground, form: str) -> None:
    """Rows are added; NULL stays NULL, and the columns may come in any order and case."""
    ground.run("INSERT INTO t VALUES (1, 'old')")

    staged = ground.ingest(body(form, [("x", 2), (None, 3)], ("B", "A")), form)

    assert staged.rows == 2
    assert ground.run("FROM t ORDER BY a") == [(1, "old"), (2, "x"), (3, None)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("keys", [(), ("A",)])
def test_upsert_by_the_primary_key(ground: Ground, form: str, keys: tuple[str, ...]) -> None:
    """Rows that are there are changed, others are added, and of equal keys the last row counts."""
    ground.run("INSERT INTO t VALUES (1, 'old'), (2, 'stays')")

    staged = ground.ingest(body(form, [(1, "x"), (3, "first"), (1, "new"), (3, "last")]), form, mode="upsert", keys=keys)

    assert staged.rows == 2
    assert ground.run("FROM t ORDER BY a") == [(1, "new"), (2, "stays"), (3, "last")]


@pytest.mark.parametrize("form", FORMATS)
def test_upsert_without_a_constraint(ground: Ground, form: str) -> None:
    """Keys may be any columns, also several, and NULL equals NULL among them."""
    ground.run("CREATE TABLE free (a INTEGER, b VARCHAR, kept INTEGER DEFAULT 7)")
    ground.run("INSERT INTO free VALUES (1, 'x', 1), (NULL, 'n', 2)")

    ground.ingest(body(form, [(1, "x"), (1, "y"), (None, "n"), (1, "y")]), form, "free", mode="upsert", keys=("a", "b"))

    assert ground.run("FROM free ORDER BY a, b") == [(1, "x", 1), (1, "y", 7), (None, "n", 2)]


@pytest.mark.parametrize("form", FORMATS)
def test_upsert_leaves_columns_alone_that_did_not_come(ground: Ground, form: str) -> None:
    """A body may have some of the columns; the others of a row that is there keep their values."""
    ground.run("CREATE TABLE wide (a INTEGER PRIMARY KEY, b VARCHAR, c INTEGER)")
    ground.run("INSERT INTO wide VALUES (1, 'b', 5)")

    ground.ingest(body(form, [(1, "new"), (2, "x")]), form, "wide", mode="upsert")

    assert ground.run("FROM wide ORDER BY a") == [(1, "new", 5), (2, "x", None)]


def test_upsert_needs_keys(ground: Ground) -> None:
    """A table without a primary key, and keys that nobody has, are said."""
    ground.run("CREATE TABLE free (a INTEGER)")
    with pytest.raises(InvalidRequest, match="no primary key"):
        ground.stage('{"a":1}', "ndjson", "free", mode="upsert")
    with pytest.raises(ColumnsDiffer, match="'nope'"):
        ground.stage('{"a":1}', "ndjson", "free", mode="upsert", keys=("nope",))
    with pytest.raises(ColumnsDiffer, match="key"):
        ground.stage("b\nx\n", "csv", mode="upsert")


@pytest.mark.parametrize("form", FORMATS)
def test_replace(ground: Ground, form: str) -> None:
    """All rows are exchanged, also when old and new have equal keys, with a unique index beside."""
    ground.run("CREATE UNIQUE INDEX by_b ON t (b)")
    ground.run("INSERT INTO t VALUES (1, 'one'), (2, 'two')")

    ground.ingest(body(form, [(2, "two"), (3, "one")]), form, mode="replace")

    assert ground.run("FROM t ORDER BY a") == [(2, "two"), (3, "one")]


@pytest.mark.parametrize("form", FORMATS)
def test_replace_by_nothing(ground: Ground, form: str) -> None:
    """An empty body empties the table."""
    ground.run("INSERT INTO t VALUES (1, 'one')")

    ground.ingest(body(form, []), form, mode="replace")

    assert ground.run("FROM t") == []


@pytest.mark.parametrize("form", FORMATS)
def test_create(ground: Ground, form: str) -> None:
    """A table, and its schema, are made of the data, once; later rows go into it."""
    for first in (1, 2):
        ground.ingest(body(form, [(first, "x")]), form, "new", schema="place", create=True)

    assert ground.run("FROM place.new ORDER BY a") == [(1, "x"), (2, "x")]
    assert [kind for _, kind, *_ in ground.run("DESCRIBE place.new")] == ["BIGINT", "VARCHAR"]


@pytest.mark.parametrize("form", FORMATS)
def test_no_table(ground: Ground, form: str) -> None:
    """Without create=true there must be one."""
    with pytest.raises(TableNotFound):
        ground.stage(body(form, [(1, "x")]), form, "none")


def test_a_view_is_no_table(ground: Ground) -> None:
    ground.run("CREATE VIEW seen AS FROM t")
    with pytest.raises(TableNotFound):
        ground.stage('{"a":1}', "ndjson", "seen")


# Columns


@pytest.mark.parametrize("form", FORMATS)
def test_a_new_column_is_named(ground: Ground, form: str) -> None:
    """Drift is an error that names the column, unless the table may evolve."""
    rows = body(form, [(1, "x")], ("a", "new one"))
    with pytest.raises(ColumnsDiffer, match="'new one'") as refused:
        ground.stage(rows, form)
    assert refused.value.details["unknown"] == ["new one"]

    staged = ground.ingest(rows, form, evolve=True)

    assert staged.new == (("new one", "VARCHAR"),)
    assert ground.run('SELECT a, b, "new one" FROM t') == [(1, None, "x")]


@pytest.mark.parametrize("form", FORMATS)
def test_a_column_that_does_not_come_has_its_default(ground: Ground, form: str) -> None:
    """Defaults where the body has no such column; NULL where it has, and the value is none."""
    ground.run("CREATE TABLE d (a INTEGER, b VARCHAR DEFAULT 'b', c INTEGER NOT NULL DEFAULT 3, g INTEGER AS (a * 2))")

    ground.ingest(body(form, [(1, None)]), form, "d")

    assert ground.run("FROM d") == [(1, None, 3, 2)]


@pytest.mark.parametrize("form", FORMATS)
def test_a_column_that_must_come(ground: Ground, form: str) -> None:
    """A column that must not be NULL and has no default is missed before anything is loaded."""
    ground.run("CREATE TABLE must (a INTEGER, b VARCHAR, c INTEGER NOT NULL)")
    with pytest.raises(ColumnsDiffer, match="'c'"):
        ground.stage(body(form, [(1, "x")]), form, "must")


def test_a_generated_column_cannot_come(ground: Ground) -> None:
    ground.run('CREATE TABLE g (a INTEGER, "g ""x" INTEGER GENERATED ALWAYS AS (a * 2))')
    with pytest.raises(ColumnsDiffer, match="generated"):
        ground.stage('a,"g ""x"\n1,2\n', "csv", "g")


@pytest.mark.parametrize(
    ("rows", "form"),
    [("a,A\n1,2\n", "csv"), ("a,\n1,2\n", "csv"), (as_arrow(pa.table([[1], [2]], names=["a", "a"])), "arrow")],
)
def test_columns_that_nobody_can_tell_apart(ground: Ground, rows: bytes | str, form: str) -> None:
    with pytest.raises(BodyInvalid, match="column"):
        ground.stage(rows, form)


HOSTILE = ['quo"te', "semi;colon", "sel ect", "select", "ünïcödé 🦆", "new\nline", "per%cent", "back\\slash", "a.b/c~d", "'", "--"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", FORMATS)
def test_hostile_names(ground: Ground, form: str, name: str) -> None:
    """Schemas, tables and columns may be called anything."""
    rows = [(1, "x"), (2, None)]
    if form == "csv":
        head = '"a","' + name.replace('"', '""') + '"'
        given = (head + '\n1,"x"\n2,\n').encode()
    else:
        given = body(form, rows, ("a", name))

    ground.ingest(given, form, name, schema=name, create=True)
    ground.ingest(given, form, name, schema=name, mode="upsert", keys=(name,))

    quoted = '"' + name.replace('"', '""') + '"'
    assert ground.run(f"SELECT a, {quoted} FROM {quoted}.{quoted} ORDER BY a") == rows


# Bad rows


@pytest.mark.parametrize("form", FORMATS)
def test_one_bad_row_at_the_end(ground: Ground, form: str) -> None:
    """All or nothing: 20,000 good rows and a bad one are an error that names it; the database is as it was."""
    rows = body(form, [*((str(n), "x") for n in range(20_000)), ("many", "y")])
    place = {"ndjson": ("line", 20_001), "csv": ("line", 20_002)}.get(form, ("row", 20_001))

    with pytest.raises(RowsInvalid, match="1 row is bad") as refused:
        ground.stage(rows, form)

    (found,) = refused.value.details["rows"]
    assert found[place[0]] == place[1]
    assert found["column"] == "a"
    assert "many" in found["value"]
    assert "INTEGER" in found["reason"]


@pytest.mark.parametrize("form", FORMATS)
def test_rejects(ground: Ground, form: str) -> None:
    """The good rows are taken, the bad ones lie beside with their places, reasons and contents."""
    rows = body(form, [("1", "x"), ("many", "y"), ("3", "z"), ("99999999999", "w")])

    staged = ground.ingest(rows, form, reject=True)

    assert (staged.rows, staged.rejected) == (2, 2)
    assert ground.run("FROM t ORDER BY a") == [(1, "x"), (3, "z")]
    first, second = rejected(ground)
    assert first["record"] == {"a": "many", "b": "y"}
    assert [fault["column"] for fault in second["faults"]] == ["a"]


@pytest.mark.parametrize("form", FORMATS)
def test_null_where_none_may_be(ground: Ground, form: str) -> None:
    """NOT NULL is looked at while it is staged."""
    with pytest.raises(RowsInvalid, match="NULL"):
        ground.stage(body(form, [(1, "x"), (None, "y")]), form)


@pytest.mark.parametrize("form", FORMATS)
def test_all_rows_are_bad(ground: Ground, form: str) -> None:
    """With rejects that is an ingest of no rows."""
    staged = ground.ingest(body(form, [("x", "y"), ("z", None)]), form, reject=True)

    assert (staged.rows, staged.rejected) == (0, 2)
    assert ground.run("FROM t") == []


def test_the_first_bad_rows_are_named_of_many(ground: Ground) -> None:
    """Ten of them, in order, and how many there are."""
    rows = "".join(f'{{"a": "no {n}"}}\n' if n % 2 else "nonsense\n" for n in range(5000))

    with pytest.raises(RowsInvalid) as refused:
        ground.stage(rows, "ndjson")

    assert refused.value.details["count"] == 5000
    assert [row["line"] for row in refused.value.details["rows"]] == list(range(1, 11))


def test_lines_that_are_no_objects(ground: Ground) -> None:
    """Broken JSON, other JSON, no UTF-8 and a number without end are bad lines; blank ones are none."""
    lines = [b'{"a": 1}', b"", b'{"a": ', b"[1]", b"5", b'{"a": 2, "b": "\xff"}', b"  ", b'\xef\xbb\xbf{"a": 9}', b'{"a": 3}']

    staged = ground.ingest(b"\n".join(lines), "ndjson", reject=True)

    assert staged.rows == 2
    assert [row["line"] for row in rejected(ground)] == [3, 4, 5, 6, 8]


def test_values_of_other_kinds(ground: Ground) -> None:
    """Numbers as texts are read; lists are no integers; anything is a text, digit by digit."""
    ground.ingest('{"a": "1", "b": 1.10}\n{"a": 2, "b": {"k": [1, 2.50]}}\n{"a": 3, "b": "\\u00e9\\n"}', "ndjson")
    assert ground.run("FROM t ORDER BY a") == [(1, "1.10"), (2, '{"k": [1, 2.50]}'), (3, "é\n")]
    with pytest.raises(RowsInvalid):
        ground.stage('{"a": [1]}', "ndjson")
    with pytest.raises(RowsInvalid):
        ground.stage('{"a": true}', "ndjson")


def test_nothing_inside_a_struct_is_dropped(ground: Ground) -> None:
    """A field that the STRUCT has not is a bad value, in JSON as in Arrow; one that is missing is NULL."""
    ground.run("CREATE TABLE s (v STRUCT(x INTEGER, y VARCHAR))")
    ground.ingest('{"v": {"x": 1}}', "ndjson", "s")
    assert ground.run("FROM s") == [({"x": 1, "y": None},)]
    with pytest.raises(RowsInvalid, match="zz"):
        ground.stage('{"v": {"x": 1, "zz": 2}}', "ndjson", "s")
    with pytest.raises(RowsInvalid):
        ground.stage(as_arrow(pa.table({"v": [{"x": 1, "zz": 2}]})), "arrow", "s")


# CSV


def test_csv_cells(ground: Ground) -> None:
    """Quotes, line ends and commas in cells; an empty cell is NULL, and an empty text only where it is quoted."""
    ground.ingest('a,b\r\n1,"say ""x"",\r\nyes"\r\n2,\r\n3,""\r\n\r\n4,plain', "csv")

    assert ground.run("FROM t ORDER BY a") == [(1, 'say "x",\r\nyes'), (2, None), (3, ""), (4, "plain")]


def test_csv_lines_are_counted_as_an_editor_counts_them(ground: Ground) -> None:
    """Line ends inside of cells, blank lines, rows of a wrong width and a header of two lines count."""
    text = '"a","b"\n\n1,"x\ny"\nbad,1\n2\n3,4,5\n"\n",6\n7,ok\nlast,1\n'

    with pytest.raises(RowsInvalid) as refused:
        ground.stage(text, "csv")

    assert [row["line"] for row in refused.value.details["rows"]] == [5, 6, 7, 8, 11]


def test_csv_lines_over_many_blocks(ground: Ground) -> None:
    """The count goes on from block to block, with blank lines and rows that were skipped in between."""
    rows = [f'{n},"{"x" * 100}\n{n}"' if n % 3 else f"{n},{'y' * 100}" for n in range(40_000)]
    rows[10_000], rows[30_000], rows[39_999] = "", "1,2,3", "bad,1"
    line_of_last = 2 + sum(row.count("\n") + 1 for row in rows[:-1])

    with pytest.raises(RowsInvalid) as refused:
        ground.stage("a,b\n" + "\n".join(rows), "csv")

    assert refused.value.details["count"] == 2
    assert refused.value.details["rows"][-1]["line"] == line_of_last


def test_csv_dialects(ground: Ground) -> None:
    """Another delimiter, no header, a byte order mark."""
    ground.ingest("\ufeffa;b\n1;x,y\n", "csv", delimiter=";")
    ground.ingest("2\tz\n", "csv", delimiter="\t", has_header=False)

    assert ground.run("FROM t ORDER BY a") == [(1, "x,y"), (2, "z")]
    with pytest.raises(ColumnsDiffer, match="3 columns"):
        ground.stage("1,2,3\n", "csv", has_header=False)


def test_csv_that_breaks_off(ground: Ground) -> None:
    """No row at all, a quote that is never closed, bytes that are no text."""
    for text in ("", '"a'):
        with pytest.raises(PondkeeperError):
            ground.stage(text, "csv")
    with pytest.raises(BodyInvalid, match="quotes"):
        ground.stage('a,b\n1,"x', "csv")
    with pytest.raises(RowsInvalid, match="UTF-8"):
        ground.stage(b"a,b\n1,\xff\n", "csv")


def test_rows_without_end(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that would fill the memory is refused while it comes."""
    monkeypatch.setattr(delimited, "MAX_ROW_BYTES", 100_000)
    monkeypatch.setattr(ndjson, "MAX_ROW_BYTES", 100_000)
    with pytest.raises(BodyInvalid, match="longer"):
        ground.stage("a,b\n1," + "x" * 5_000_000 + "\n", "csv")
    with pytest.raises(BodyInvalid, match="longer"):
        ground.stage('{"a": 1, "b": "' + "x" * 5_000_000 + '"}', "ndjson")


def test_long_rows(ground: Ground) -> None:
    """A megabyte in one cell is nothing to be afraid of, in a header or below it."""
    long = "x" * 3_000_000
    ground.ingest(f'a,b\n1,{long}\n2,"{long}"\n', "csv")
    ground.ingest(f"3,{long}\n", "csv", has_header=False)
    ground.ingest(f'{{"a": 4, "b": "{long}"}}\n', "ndjson")
    assert ground.run("SELECT a, length(b) FROM t ORDER BY a") == [(n, len(long)) for n in range(1, 5)]


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        (b"a,\xff\n1,2\n", "csv"),
        (b"a,__pondkeeper_place\n1,2\n", "csv"),
        (as_arrow(pa.table({"a": [1], "n\0": [2]})), "arrow"),
        (b'{"a": 1, "": 2}', "ndjson"),
        (b'{"a": 1, "n\\u0000": 2}', "ndjson"),
    ],
)
def test_names_that_no_column_can_have(ground: Ground, rows: bytes, form: str) -> None:
    with pytest.raises((BodyInvalid, ColumnsDiffer)):
        ground.stage(rows, form, evolve=True)


def test_columns_without_end(ground: Ground) -> None:
    """A bomb of columns is refused by its head."""
    with pytest.raises(BodyInvalid, match="columns"):
        ground.stage(",".join(f"c{n}" for n in range(10_000)) + "\n", "csv", "bomb", create=True)


# Arrow and Parquet


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_what_fits_is_not_written_anew(ground: Ground, form: str) -> None:
    """Also where a type must be cast; but not with a bad value, or twins of a key."""
    assert ground.stage(body(form, [(1, "x")]), form).is_as_it_came
    assert ground.stage(body(form, [("1", "x")]), form).is_as_it_came
    assert ground.stage(body(form, [(1, "x"), (2, "y")]), form, mode="upsert").is_as_it_came
    assert not ground.stage(body(form, [(1, "x"), (1, "y")]), form, mode="upsert").is_as_it_came
    assert not ground.stage(body(form, [("1", "x"), ("no", "y")]), form, reject=True).is_as_it_came


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("cut", [1, 10, 0.3, 0.5, 0.9])
def test_bodies_that_break_off(ground: Ground, form: str, cut: float) -> None:
    """A file that lost its end, or its middle, is refused while it is staged."""
    whole = body(form, [(n, f"text {n}") for n in range(5000)])
    kept = len(whole) - cut if cut >= 1 else int(len(whole) * cut)
    if form == "arrow" and cut == 1:
        kept = len(whole) - 9  # Why: the end mark alone may be missing, which no reader of Arrow minds.

    with pytest.raises(BodyInvalid):
        ground.stage(whole[: int(kept)], form)


@pytest.mark.parametrize("form", FORMATS)
def test_noise(ground: Ground, form: str) -> None:
    """Bytes of nothing are an error of ours, whatever the format."""
    noise = bytes(range(256)) * 40
    with pytest.raises(PondkeeperError) as refused:
        ground.stage(noise, form)
    assert refused.value.http_status in (400, 422)


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("at", [0.2, 0.4, 0.6, 0.8])
def test_bodies_with_a_hole(ground: Ground, form: str, at: float) -> None:
    """Bytes turned into others: refused, or the rows are taken as they are; never a crash, never a text that is none."""
    whole = bytearray(body(form, [(n, f"text {n}") for n in range(5000)]))
    middle = int(len(whole) * at)
    whole[middle : middle + 64] = b"\xff" * 64
    try:
        staged = ground.stage(bytes(whole), form)
    except PondkeeperError as refused:
        assert refused.http_status in (400, 422)
    else:
        assert staged.rows == 5000


def test_packed_arrow_and_arrow_files(ground: Ground) -> None:
    """Streams with packed buffers and dictionaries, and Arrow's file format."""
    table = pa.table({"a": [1, 2], "b": pa.array(["x", "y"]).dictionary_encode()})
    ground.ingest(as_arrow(table, options=pa.ipc.IpcWriteOptions(compression="zstd")), "arrow")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.table({"a": [3], "b": ["z"]}).schema) as writer:
        writer.write_table(pa.table({"a": [3], "b": ["z"]}))
    ground.ingest(sink.getvalue().to_pybytes(), "arrow")

    assert ground.run("FROM t ORDER BY a") == [(1, "x"), (2, "y"), (3, "z")]


def test_texts_that_are_no_utf8(ground: Ground) -> None:
    """Arrow lets anything be a string; we do not."""
    bad = pa.table({"a": pa.array([1]), "b": pa.array([b"\xff\xfe"]).view(pa.string())})
    for form, rows in (("arrow", as_arrow(bad)), ("parquet", as_parquet(bad))):
        with pytest.raises(BodyInvalid, match="UTF8"):
            ground.stage(rows, form)


@pytest.mark.parametrize("groups", [1, 1000])
def test_parquet_of_many_row_groups(ground: Ground, groups: int) -> None:
    """Verified beside each other, loaded in their order."""
    count = 20_000
    table = pa.table({"a": range(count), "b": [f"text {n % 7}" for n in range(count)]})

    staged = ground.ingest(as_parquet(table, row_group_size=count // groups), "parquet")

    assert staged.is_as_it_came
    assert ground.run("SELECT count(*), sum(a), count(DISTINCT b) FROM t") == [(count, count * (count - 1) // 2, 7)]
    assert ground.run("SELECT a FROM t LIMIT 3") == [(0,), (1,), (2,)]


# The table between staging and loading


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ADD COLUMN c INTEGER",
        "ALTER TABLE t RENAME COLUMN b TO c",
        "DROP TABLE t",
        "ALTER TABLE t ALTER COLUMN b SET NOT NULL",
    ],
)
def test_a_table_that_changed_meanwhile(ground: Ground, change: str) -> None:
    """The load is refused with what the table is now; nothing went into it."""
    shape = ground.shape("t")
    staged = ground.stage('{"a": 1, "b": "x"}', "ndjson")
    ground.run(change)

    with pytest.raises(TableChanged) as refused:
        ground.load(staged, shape=shape)

    now = ground.shape("t")
    assert refused.value.details["shape"] == (now.to_wire() if now else None)
    if now is not None:
        assert ground.run("SELECT count(*) FROM t") == [(0,)]


def test_a_constraint_that_only_the_database_knows(ground: Ground) -> None:
    """A key that is there already ends the load, and all of it is rolled back."""
    ground.run("INSERT INTO t VALUES (2, 'there')")
    staged = ground.stage('{"a": 1}\n{"a": 2}\n', "ndjson")

    with pytest.raises(duckdb.ConstraintException):
        ground.load(staged)

    assert ground.run("FROM t") == [(2, "there")]


def test_staged_rows_have_a_limit(ground: Ground) -> None:
    """More than may be staged is refused, and says which setting it is."""
    rows = "".join(f'{{"a": {n}, "b": "{n * 7919:064x}{n * 104729:064x}"}}\n' for n in range(200_000))
    with pytest.raises(BodyTooLarge, match="staged"):
        ground.stage(rows, "ndjson", limit_bytes=1024 * 1024)

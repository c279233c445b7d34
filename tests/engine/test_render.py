"""Answers are streamed, cut where the limits say, and say so."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pondkeeper.engine.render.answer import CONTENT_TYPES, render
from pondkeeper.engine.statements import reading_statement
from pondkeeper.errors import InvalidRequest, SqlInvalid, StatementFailed
from tests.engine.rendering import UNLIMITED, answer

FORMS = list(CONTENT_TYPES)
ENDLESS = "select i, 'row ' || i as s from range(1000000000000) as r(i)"


def row_count(form: str, body: bytes) -> int:
    """How many rows a client finds in the body."""
    match form:
        case "json":
            return len(json.loads(body)["rows"])
        case "ndjson":
            return len(body.splitlines())
        case "csv":
            return len(list(csv.reader(io.StringIO(body.decode(), newline="")))) - 1
        case "arrow":
            with pa.ipc.open_stream(body) as reader:
                return reader.read_all().num_rows
    return pq.read_table(io.BytesIO(body)).num_rows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("rows", "max_rows", "kept"), [(5, 5, 5), (6, 5, 5), (0, 5, 0), (5, 0, 0), (40000, 39999, 39999)]
)
def test_max_rows_cuts_exactly_and_only_what_is_more(
    guest: duckdb.DuckDBPyConnection, form: str, rows: int, max_rows: int, kept: int
) -> None:
    """An answer of as many rows as allowed is whole; one row more, and it is cut and says by what."""
    rendered, body = answer(guest, f"select i from t where i < {rows} order by i", form, max_rows=max_rows)

    assert rendered.ending is not None
    assert row_count(form, body) == rendered.ending.row_count == kept
    assert rendered.ending.truncated is (rows > max_rows)
    assert rendered.ending.limit == ("max_rows" if rows > max_rows else None)


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
@pytest.mark.parametrize("max_bytes", [1, 300, 5000, 100_000, 1_000_000])
def test_max_bytes_is_never_passed_by_a_text(guest: duckdb.DuckDBPyConnection, form: str, max_bytes: int) -> None:
    """The body is cut between two rows, before it grows beyond the limit; what is left is a whole document."""
    rendered, body = answer(guest, "select i, s, d from t", form, max_bytes=max_bytes)

    assert rendered.ending is not None
    assert rendered.ending.limit == "max_bytes"
    assert row_count(form, body) == rendered.ending.row_count
    assert len(body) <= max(max_bytes, 300)
    assert rendered.ending.row_count == 0 or len(body) > max_bytes - 400


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_max_bytes_counts_the_values_of_binary_formats(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """Arrow and Parquet are cut by the size of their values, and never send the buffers of what was cut."""
    rendered, body = answer(guest, "select i, s, d from t", form, max_bytes=100_000)

    assert rendered.ending is not None
    assert rendered.ending.limit == "max_bytes"
    assert 1000 < row_count(form, body) == rendered.ending.row_count < 6000
    assert len(body) < 120_000


@pytest.mark.parametrize("form", FORMS)
def test_an_endless_answer_is_cut_at_once(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """A trillion rows cost no more than those that are asked for: the engine makes no more than are taken."""
    began = time.monotonic()
    rendered, _ = answer(guest, ENDLESS, form, max_rows=1000)

    assert rendered.ending is not None
    assert rendered.ending.row_count == 1000
    assert time.monotonic() - began < 20


def test_a_cut_answer_says_so_in_its_own_way(guest: duckdb.DuckDBPyConnection) -> None:
    """JSON by its fields, Arrow by the metadata of a last empty batch, Parquet by its key-value metadata."""
    said = {"pondkeeper.truncated": "true", "pondkeeper.limit": "max_rows", "pondkeeper.row_count": "3"}

    document = json.loads(answer(guest, "select i from t", max_rows=3)[1])
    assert (document["row_count"], document["truncated"], document["limit"]) == (3, True, "max_rows")

    last: Any = None
    with pa.ipc.open_stream(answer(guest, "select i from t", "arrow", max_rows=3)[1]) as reader:
        while True:
            try:
                last = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
    assert last.batch.num_rows == 0
    assert {key.decode(): value.decode() for key, value in last.custom_metadata.items()} == said

    parquet = pq.ParquetFile(io.BytesIO(answer(guest, "select i from t", "parquet", max_rows=3)[1]))
    assert said.items() <= {k.decode(): v.decode() for k, v in parquet.metadata.metadata.items()}.items()


def test_the_json_document_has_its_shape(guest: duckdb.DuckDBPyConnection) -> None:
    """Columns with names and types, rows, row count, truncated, limit, version, elapsed: in that order."""
    _, body = answer(guest, "select 1 as a, 'x' as b", version=42)
    document = json.loads(body)

    assert list(document) == ["columns", "rows", "row_count", "truncated", "limit", "version", "elapsed_ms"]
    assert document["columns"] == [{"name": "a", "type": "INTEGER"}, {"name": "b", "type": "VARCHAR"}]
    assert document["rows"] == [[1, "x"]]
    assert (document["version"], document["limit"]) == (42, None)


def test_every_binary_answer_names_its_version(guest: duckdb.DuckDBPyConnection) -> None:
    """The version of the snapshot is in the schema's metadata."""
    with pa.ipc.open_stream(answer(guest, "select 1 as a", "arrow", version=42)[1]) as reader:
        assert reader.schema.metadata[b"pondkeeper.version"] == b"42"
    parquet = pq.ParquetFile(io.BytesIO(answer(guest, "select 1 as a", "parquet", version=42)[1]))
    assert parquet.schema_arrow.metadata[b"pondkeeper.version"] == b"42"


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_answer_is_a_whole_document(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """No rows: still columns and an ending, in every format."""
    rendered, body = answer(guest, "select i, s from t where false", form)

    assert rendered.ending is not None
    assert rendered.ending.row_count == row_count(form, body) == 0
    assert [column["name"] for column in rendered.columns] == ["i", "s"]


def test_columns_of_one_name_are_told_apart(guest: duckdb.DuckDBPyConnection) -> None:
    """The second `a` is `a_1`, as DuckDB itself calls it in a subquery; no value is lost in an object."""
    _, body = answer(guest, "select 1 as a, 2 as a, 3 as A", "ndjson")

    assert json.loads(body) == {"a": 1, "a_1": 2, "A_2": 3}


def test_macros_of_a_guest_do_not_render(guest: duckdb.DuckDBPyConnection) -> None:
    """The database has macros called concat, replace, json_array and ||: they work where asked for, and nowhere else."""
    _, body = answer(guest, "select replace('a', 'b', 'c') as own, map {'k': TIMESTAMP '2020-01-01'} as m", "ndjson")

    assert json.loads(body) == {"own": "shadowed", "m": [["k", "2020-01-01T00:00:00"]]}


def test_one_nan_does_not_change_its_neighbours(guest: duckdb.DuckDBPyConnection) -> None:
    """A row with a NaN takes the exact way and the rows around it the fast one; their values read the same."""
    sql = "select if(i = 2, 'nan'::double, i / 4) as d, i::float / 10 as f, 'x\"' as s from range(5) as r(i)"
    rows = [json.loads(line) for line in answer(guest, sql, "ndjson")[1].splitlines()]

    assert [row["d"] for row in rows] == [0.0, 0.25, "NaN", 0.75, 1.0]
    assert [row["f"] for row in rows] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert {row["s"] for row in rows} == {'x"'}


@pytest.mark.parametrize("form", FORMS)
def test_explain_is_rendered_as_any_answer(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """EXPLAIN gives its plan in every format, with parameters too."""
    rendered, body = answer(guest, "explain analyze select count(*) from t where i < ?", form, parameters=[10])

    assert [column["name"] for column in rendered.columns] == ["explain_key", "explain_value"]
    assert row_count(form, body) >= 1


def test_a_format_that_does_not_exist_is_refused(guest: duckdb.DuckDBPyConnection) -> None:
    """The error names those that do."""
    with pytest.raises(InvalidRequest) as refused:
        answer(guest, "select 1", "xlsx")

    assert "ndjson" in refused.value.remedy


def test_what_fails_at_once_fails_before_the_head(guest: duckdb.DuckDBPyConnection) -> None:
    """`render` raises by itself, so that a client gets a status and not a broken body."""
    cursor = guest.cursor()
    for sql in ("select missing from t", "select 'x'::integer", "select error('now')"):
        statement = reading_statement(cursor, sql)
        for form in FORMS:
            with pytest.raises(Exception, match=r"missing|INT32|now"):
                render(cursor, statement, None, form, UNLIMITED, UNLIMITED, 1)
    with pytest.raises(SqlInvalid):
        answer(guest, "select missing from t")


def test_csv_follows_rfc_4180(guest: duckdb.DuckDBPyConnection) -> None:
    """CRLF ends every record, quotes are doubled, NULL is nothing and the empty string is quoted."""
    sql = """select 'a,b' as "x,y", 'say "so"' as b, '' as empty, NULL::varchar as nothing, e'1\\n2' as lines"""

    assert answer(guest, sql, "csv")[1] == b'"x,y",b,empty,nothing,lines\r\n"a,b","say ""so""","",,"1\n2"\r\n'


@pytest.mark.parametrize("form", FORMS)
def test_chunks_are_of_a_size_to_send(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """A long answer comes in pieces of a few hundred KiB: neither thousands of crumbs nor all at once."""
    cursor = guest.cursor()
    rendered = render(cursor, reading_statement(cursor, "from t, range(8)"), None, form, UNLIMITED, UNLIMITED, 1)
    sizes = [len(chunk) for chunk in rendered.chunks()]

    assert max(sizes) <= 4 * 1024 * 1024
    assert sum(sizes) / len(sizes) > 64 * 1024


MEASURE = """
import sys
from pondkeeper.engine.opening import ReaderConfig, open_snapshot
from pondkeeper.engine.render.answer import render
from pondkeeper.engine.statements import reading_statement

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20

path, temp, form, with_parameters = sys.argv[1:]
connection = open_snapshot(ReaderConfig(path, 2**28, 2, temp, 2**30))
sql, given = "select i, 'some text ' || i as s, i / 3 as d from range({}) as r(i)", None
sql, given = (sql.format("?"), [3000000]) if with_parameters == "True" else (sql.format("3000000"), None)
cursor = connection.cursor()

def drain(max_rows):
    peak = size = 0
    for place, chunk in enumerate(render(cursor, reading_statement(cursor, sql), given, form, max_rows, 2**62, 1).chunks()):
        size += len(chunk)
        peak = max(peak, resident_mb()) if place % 8 == 0 else peak
    return peak, size

drain(1000)
before = resident_mb()
peak, size = drain(2**62)
print(peak - before, size // 2**20)
"""


def measured(program: str, snapshot: Path, folder: Path, form: str, with_parameters: bool) -> tuple[int, int]:
    """By how many MiB a process grew, and how many MiB it rendered."""
    arguments = [str(snapshot), str(folder / "temp"), form, str(with_parameters)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    grown_mb, size_mb = map(int, done.stdout.split())
    return grown_mb, size_mb


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("with_parameters", [False, True])
def test_an_answer_is_never_held_in_memory(snapshot: Path, tmp_path: Path, form: str, with_parameters: bool) -> None:
    """Three million rows pass through a process that grows by far less than their size, with and without parameters."""
    grown_mb, size_mb = measured(MEASURE, snapshot, tmp_path, form, with_parameters)

    assert size_mb > 30
    assert grown_mb < (130 if form == "parquet" else 60)


def test_the_measure_sees_an_answer_that_is_held(snapshot: Path, tmp_path: Path) -> None:
    """The positive control: the same program with all chunks kept grows by the size of the answer."""
    keeping = MEASURE.replace("size += len(chunk)", "size += len(chunk); kept.append(bytes(chunk))").replace(
        "def drain", "kept = []\ndef drain"
    )
    grown_mb, size_mb = measured(keeping, snapshot, tmp_path, "json", False)

    assert grown_mb > size_mb // 2 > 40


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_a_fault_names_the_line_of_the_guests_own_text(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """DuckDB counts lines of what it was given; the guest reads lines of what they sent."""
    for sql, line in (("select 'x'::integer", 1), ("select 1,\n  'x'::integer\nfrom t", 2)):
        with pytest.raises(StatementFailed) as refused:
            answer(guest, sql, form)
        assert f"LINE {line}:" in refused.value.message


def test_wide_and_deep_answers_are_rendered(guest: duckdb.DuckDBPyConnection) -> None:
    """Two thousand columns, and forty structs in each other, are an answer like any other."""
    wide = "select " + ", ".join(f"{n} as c{n}, DATE '2020-01-01' as d{n}" for n in range(1000))
    assert len(json.loads(answer(guest, wide, "ndjson")[1])) == 2000

    deep = "TIMESTAMP '2020-01-01'"
    for _ in range(40):
        deep = f"{{'a': {deep}}}"
    body = answer(guest, f"select {deep} as x", "ndjson")[1].decode()
    assert body.count('{"a":') == 40
    assert "2020-01-01T00:00:00" in body


def test_pivot_finds_its_columns_in_the_data(guest: duckdb.DuckDBPyConnection) -> None:
    """PIVOT without IN looks at its data while it is bound, and answers as any statement."""
    rendered, _ = answer(guest, "pivot (select g, i from t where i < 14) on g using count(*)", "ndjson")
    assert len(rendered.columns) == 8

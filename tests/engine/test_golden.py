"""One result set of every type that is hard, in every format, byte for byte.

`GOLDEN_UPDATE=1 pytest tests/engine/test_golden.py` writes the files anew; read the difference before it is committed.
"""

from __future__ import annotations

import io
import json
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.rendering import answer

GOLDEN = Path(__file__).parents[1] / "golden"
LINE = ".".join(duckdb.__version__.split(".")[:2])
FILES = {"json": "json", "ndjson": "ndjson", "csv": "csv"}


def statement(name: str) -> str:
    return (GOLDEN / f"{name}.sql").read_text()


def settled(body: bytes) -> bytes:
    """The body without the time that it took."""
    return re.sub(rb'"elapsed_ms":[0-9.e-]+', b'"elapsed_ms":0.0', body)


def compare(path: Path, body: bytes) -> None:
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_bytes(body)

    expected = path.read_bytes()
    if expected != body:  # Why: pytest's own difference of two long lines takes minutes.
        place = next(
            (at for at, (one, two) in enumerate(zip(expected, body, strict=False)) if one != two), len(expected)
        )
        around = slice(max(place - 60, 0), place + 60)
        pytest.fail(f"{path.name} differs at byte {place}:\n  golden {expected[around]!r}\n  now    {body[around]!r}")


@pytest.mark.parametrize("form", FILES)
def test_every_hard_type_reads_the_same_on_both_engines(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """The text formats of the hard types are the golden bytes, whatever the engine."""
    _, body = answer(guest, statement("hard_types"), form)

    compare(GOLDEN / f"hard_types.{FILES[form]}", settled(body))


@pytest.mark.parametrize("form", FILES)
def test_types_that_an_engine_names_its_own_way_keep_their_values(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """Bare NULLs, empty lists, unnamed structs and geometries are golden per engine line where their names differ."""
    _, body = answer(guest, statement("odd_types"), form)

    suffix = f"{LINE}.{FILES[form]}" if form == "json" else FILES[form]
    compare(GOLDEN / f"odd_types.{suffix}", settled(body))


@pytest.fixture
def rows(guest: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer(guest, statement("hard_types"), "ndjson")[1].splitlines()]


def test_json_holds_the_values_that_the_statement_names(rows: list[dict[str, Any]]) -> None:
    """What the golden files say is also what the SQL says: written down here a second time, by hand."""
    assert rows[0] == dict.fromkeys(rows[0], None) | {"row": 1}
    assert rows[1]["bigint"] == -(2**63)
    assert rows[2]["ubigint"] == 2**64 - 1
    assert rows[1]["hugeint"] == str(-(2**127))
    assert rows[2]["uhugeint"] == str(2**128 - 1)
    assert [row["float"] for row in rows[1:4]] == [0.1, "NaN", "-Infinity"]
    assert str(rows[4]["double"]) == "-0.0"
    assert rows[5]["double"] == 5e-324
    assert rows[1]["decimal(38,10)"] == "9999999999999999999999999999.9999999999"
    assert rows[4]["varchar"] == "line\nfeed\r\ttab"
    assert rows[1]["timestamptz"] == "2024-02-29T07:04:56.123456+00:00"
    assert rows[3]["timestamptz"] == "+294247-01-10T04:00:54.775806+00:00"
    assert rows[2]["timetz"] == "12:34:56.123456+05:30"
    assert rows[2]["interval"] == "-1 year -2 months -3 days"
    assert rows[1]["map"] == [["b", "1.5"], ["a", None]]
    assert rows[3]["union"] == {"number": None}
    assert rows[3]["variant"] == 2**127 - 1


def test_json_columns_go_out_digit_by_digit(guest: duckdb.DuckDBPyConnection) -> None:
    """A JSON value is not read and written again: 1.10 stays 1.10, and 36 digits stay 36 digits."""
    _, body = answer(guest, statement("hard_types"), "ndjson")

    assert (
        b'{"exact": 1.10, "long": 3.14159265358979323846264338327950288, "big": 123456789012345678901234567890}' in body
    )


def test_every_ndjson_line_and_the_json_body_are_strict_json(guest: duckdb.DuckDBPyConnection) -> None:
    """No NaN, no Infinity, no line feed inside a row: a parser that knows only RFC 8259 reads all of it."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    for line in answer(guest, statement("hard_types"), "ndjson")[1].decode().splitlines():
        json.loads(line, parse_constant=refuse)
    json.loads(answer(guest, statement("hard_types"))[1], parse_constant=refuse)


def arrow_table(guest: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    with pa.ipc.open_stream(answer(guest, statement(name), "arrow")[1]) as reader:
        return reader.read_all()


def parquet_table(guest: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(answer(guest, statement(name), "parquet")[1]))


def test_arrow_holds_the_exact_values(guest: duckdb.DuckDBPyConnection) -> None:
    """What Arrow has a type for is that type, infinities are DuckDB's own, and the rest is its canonical text."""
    table = arrow_table(guest, "hard_types")

    def column(name: str) -> list[Any]:
        return table.column(name).to_pylist()

    def number(name: str) -> list[Any]:
        raw = pa.int32() if pa.types.is_date32(table.schema.field(name).type) else pa.int64()
        return [value.as_py() for value in table.column(name).combine_chunks().view(raw)]

    assert column("hugeint")[1:3] == [Decimal(-(2**127)), Decimal(2**127 - 1)]
    assert column("uhugeint")[2] == str(2**128 - 1)
    assert column("decimal(38,10)")[1] == Decimal("9999999999999999999999999999.9999999999")
    assert column("timetz")[2] == "12:34:56.123456+05:30"
    assert column("interval")[3] == "2562047788:00:54.775807"
    assert column("bit")[3] == "0101010101"
    assert column("enum")[2] == 'with "quotes", comma'
    assert column("union")[4] == '{"od\'d":[0.5]}'
    assert column("blob")[2] == b"\x00\xff\x22"
    assert number("timestamp")[3:] == [2**63 - 2, 2**63 - 1, -(2**63 - 1)]
    assert number("timestamp_ns")[1] == 1709210096123456789
    assert number("date")[3:] == [2**31 - 2, 2**31 - 1, -(2**31 - 1)]
    assert table.schema.field("timestamptz").type == pa.timestamp("us", "UTC")
    assert table.schema.field("uhugeint").metadata[b"pondkeeper.type"] == b"UHUGEINT"


@pytest.mark.parametrize("name", ["hard_types", "odd_types"])
def test_parquet_holds_what_arrow_holds(guest: duckdb.DuckDBPyConnection, name: str) -> None:
    """Column by column the decoded Parquet file equals the decoded Arrow stream, but for two types it cannot name."""
    arrow, parquet = arrow_table(guest, name), parquet_table(guest, name)

    for field in arrow.schema:
        expected, found = arrow.column(field.name).combine_chunks(), parquet.column(field.name).combine_chunks()
        if field.name != "timestamp_s":  # microseconds there; see below
            assert shown(expected) == shown(found), field.name


def shown(values: pa.Array) -> str:
    """What an array holds, as text: so NaN equals NaN, and infinite times, which Python has no object for, compare."""
    text = values.to_string(window=100, container_window=100)
    return re.sub(r"type: .*", "", text)  # Why: Parquet has names of its own for the elements of a list.


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_duckdbs_own_collection_of_types_renders_in_every_format(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """Whatever types this release knows, with their smallest and largest values: each is rendered, none is a fault."""
    rendered, body = answer(guest, "from test_all_types()", form)

    assert rendered.ending is not None
    assert rendered.ending.row_count == 3
    assert len(rendered.columns) > 50
    assert body


def test_duckdbs_own_collection_of_types_is_strict_json(guest: duckdb.DuckDBPyConnection) -> None:
    """Its extreme values read back as they are known to be."""
    low, high, none = json.loads(answer(guest, "from test_all_types()")[1])["rows"]
    names = [column["name"] for column in answer(guest, "from test_all_types()")[0].columns]

    assert high[names.index("timestamp_s")] == "+294247-01-10T04:00:54"
    assert low[names.index("timestamp")] == "-290308-12-22T00:00:00"
    assert high[names.index("uhugeint")] == str(2**128 - 1)
    assert none[names.index("map")] is None


def test_parquet_keeps_seconds_as_microseconds(guest: duckdb.DuckDBPyConnection) -> None:
    """Parquet has no unit of seconds: the moments are the same, and infinity stays infinity."""
    column = parquet_table(guest, "hard_types").column("timestamp_s").combine_chunks()

    assert column.type == pa.timestamp("us")
    assert [value.as_py() for value in column.view(pa.int64())] == [
        None, 1709210096000000, -1000000, 253402300799000000, 2**63 - 1, -(2**63 - 1),
    ]  # fmt: skip


def test_duckdb_reads_its_own_parquet_answer_back(guest: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """A file that DuckDB reads again shows the same values, rendered the same, for every type that came as itself."""
    path = tmp_path / "answer.parquet"
    path.write_bytes(answer(guest, statement("hard_types"), "parquet")[1])
    expected = [json.loads(line) for line in answer(guest, statement("hard_types"), "ndjson")[1].splitlines()]
    with duckdb.connect() as elsewhere:
        elsewhere.execute(f"CREATE TABLE again AS FROM read_parquet('{path}')")
        # Why: -2^127 has 39 digits, more than DECIMAL(38,0) promises; DuckDB holds it but cannot print it.
        sql = "SELECT * REPLACE (if(row = 2, 0, hugeint) AS hugeint) FROM again"
        _, body = answer(elsewhere, sql, "ndjson")
    found = [json.loads(line) for line in body.splitlines()]
    expected[1]["hugeint"] = "0"

    as_text = {"json", "json beyond the standard", "json[]", "union", "variant", "everything nested"}
    as_text.add("time_ns")  # DuckDB reads the nanoseconds of the file as microseconds.
    for name in expected[0].keys() - as_text:
        assert [row[name] for row in found] == [row[name] for row in expected], name

"""Every type of PostgreSQL arrives as it is: by COPY BINARY, and by its text as logical replication brings it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pondkeeper.kinds.postgres.connecting import SESSION
from pondkeeper.kinds.postgres.describing import describe
from pondkeeper.kinds.postgres.types import Mapped, mapped, numeric_shape, parse_array
from tests.kinds.running import run_job
from tests.support.postgres import PostgresServer

# Name of a column, its type there, its type here, and pairs of a literal there and the text that DuckDB has for it here.
Values = list[tuple[str, str | None]]
COLUMNS: list[tuple[str, str, str, Values]] = [
    ("flag", "boolean", "BOOLEAN", [("true", "true"), ("false", "false")]),
    ("tiny", "smallint", "SMALLINT", [("-32768", "-32768"), ("32767", "32767")]),
    ("whole", "integer", "INTEGER", [("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("big", "bigint", "BIGINT", [("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")]),
    ("number", "oid", "UINTEGER", [("4294967295", "4294967295"), ("0", "0")]),
    ("single", "real", "FLOAT", [("0.1", "0.1"), ("'NaN'", "nan"), ("'-Infinity'", "-inf"), ("'1e-45'", "1e-45")]),
    ("double", "double precision", "DOUBLE", [("0.1", "0.1"), ("'NaN'", "nan"), ("'Infinity'", "inf"), ("1.7976931348623157e308", "1.7976931348623157e+308"), ("0.30000000000000004", "0.30000000000000004")]),
    ("price", "numeric(12,2)", "DECIMAL(12,2)", [("1234567890.12", "1234567890.12"), ("-0.01", "-0.01"), ("0", "0.00")]),
    ("fine", "numeric(20,17)", "DECIMAL(20,17)", [("1.12345678901234567", "1.12345678901234567"), ("0.00001", "0.00001000000000000"), ("-999.99999999999999999", "-999.99999999999999999")]),
    ("wide", "numeric(38,5)", "DECIMAL(38,5)", [("123456789012345678901234567890123.12345", "123456789012345678901234567890123.12345"), ("10000", "10000.00000")]),
    ("wider", "numeric(50,2)", "VARCHAR", [("123456789012345678901234567890123456789012345678.91", "123456789012345678901234567890123456789012345678.91")]),
    ("free", "numeric", "VARCHAR", [("3.14159265358979323846264338327950288419716939937510", "3.14159265358979323846264338327950288419716939937510"), ("'NaN'", "NaN"), ("1e20", "100000000000000000000")]),
    ("rounded", "numeric(3,-2)", "VARCHAR", [("12345", "12300")]),
    ("note", "text", "VARCHAR", [("''", ""), ("E'a,\"b\"\\n\\t\\\\c'", 'a,"b"\n\t\\c'), ("'Grüße 🐘'", "Grüße 🐘"), ("'\\N'", "\\N"), ("'NULL'", "NULL")]),
    ("codes", "char(3)[]", "VARCHAR[]", [("ARRAY['a', NULL]::char(3)[]", "a  |∅")]),
    ("hosts", "inet[]", "VARCHAR[]", [("ARRAY['::1', '10.0.0.0/8']::inet[]", "::1|10.0.0.0/8")]),
    ("code", "char(5)", "VARCHAR", [("'ab'", "ab   ")]),
    ("short", "varchar(10)", "VARCHAR", [("'x'", "x")]),
    ("bytes", "bytea", "BLOB", [("''", ""), ("'\\x0001ff27'", "\\x00\\x01\\xFF\\x27")]),
    ("day", "date", "DATE", [("'2024-02-29'", "2024-02-29"), ("'infinity'", "infinity"), ("'-infinity'", "-infinity"), ("'0044-03-15 BC'", "0044-03-15 (BC)"), ("'4713-01-01 BC'", "4713-01-01 (BC)"), ("'5874897-12-31'", "5874897-12-31"), ("'1970-01-01'", "1970-01-01")]),
    ("hour", "time", "TIME", [("'24:00'", "24:00:00"), ("'23:59:59.999999'", "23:59:59.999999"), ("'00:00'", "00:00:00")]),
    ("hour_there", "timetz", "TIME WITH TIME ZONE", [("'12:00:00.5+05:30'", "12:00:00.5+05:30"), ("'24:00-15:59'", "24:00:00-15:59")]),
    ("made", "timestamp", "TIMESTAMP", [("'2024-02-29 12:34:56.123456'", "2024-02-29 12:34:56.123456"), ("'infinity'", "infinity"), ("'-infinity'", "-infinity"), ("'0044-03-15 10:00 BC'", "0044-03-15 (BC) 10:00:00"), ("'4713-01-01 BC'", "4713-01-01 (BC) 00:00:00"), ("'294247-01-10 04:00:54.775806'", "294247-01-10 04:00:54.775806")]),
    ("seen", "timestamptz", "TIMESTAMP WITH TIME ZONE", [("'2024-07-01 12:00:00.000001+02'", "2024-07-01 10:00:00.000001+00"), ("'infinity'", "infinity"), ("'-infinity'", "-infinity"), ("'0044-03-15 10:00Z BC'", "0044-03-15 (BC) 10:00:00+00"), ("'1969-12-31 23:59:59.999999Z'", "1969-12-31 23:59:59.999999+00")]),
    ("coarse", "timestamptz(0)", "TIMESTAMP WITH TIME ZONE", [("'2024-07-01 12:00:00.6+00'", "2024-07-01 12:00:01+00")]),
    ("lasts", "interval", "INTERVAL", [("'1 year 2 mons -3 days +04:05:06.789'", "1 year 2 months -3 days 04:05:06.789"), ("'-1 mon +1 day -00:00:00.000001'", "-1 month 1 day -00:00:00.000001"), ("'400 hours'", "400:00:00"), ("'0'", "00:00:00")]),
    ("who", "uuid", "UUID", [("'a5640560-779c-4d35-bdad-1a849daff438'", "a5640560-779c-4d35-bdad-1a849daff438"), ("'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000")]),
    ("raw_json", "json", "JSON", [("'{\"a\": 1.10, \"a\":  null}'", '{"a": 1.10, "a":  null}')]),
    ("json_b", "jsonb", "JSON", [("'{\"b\": [1e400, \"x\\\\u00e9\"]}'", None), ("'null'", "null"), ("'\"text\"'", '"text"')]),
    ("mood", "mood", "VARCHAR", [("'so so'", "so so")]),
    ("address", "inet", "VARCHAR", [("'10.0.0.0/8'", "10.0.0.0/8"), ("'::1'", "::1")]),
    ("net", "cidr", "VARCHAR", [("'192.168.1.0/24'", "192.168.1.0/24")]),
    ("card", "macaddr", "VARCHAR", [("'08:00:2b:01:02:03'", "08:00:2b:01:02:03")]),
    ("span", "int4range", "VARCHAR", [("'[1,5)'", "[1,5)"), ("'empty'", "empty")]),
    ("spot", "point", "VARCHAR", [("'(1,2.5)'", "(1,2.5)")]),
    ("words", "tsvector", "VARCHAR", [("'a fat cat'", "'a' 'cat' 'fat'")]),
    ("pair", "pair", "VARCHAR", [("ROW(1, 'a b')", '(1,"a b")')]),
    ("bits", "bit(4)", "BIT", [("B'0101'", "0101")]),
    ("more_bits", "varbit", "VARCHAR", [("B''", ""), ("B'101'", "101")]),
    ("cash", "money", "VARCHAR", [("'12.34'", "$12.34")]),
    ("percent", "percent", "DECIMAL(5,2)", [("12.5", "12.50")]),
    ("nick", "nick", "VARCHAR", [("'ann'", "ann")]),
    ("whens", "when_at", "TIMESTAMP WITH TIME ZONE", [("'infinity'", "infinity")]),
    ("tags", "text[]", "VARCHAR[]", [("ARRAY['a,b', '\"q\"', NULL, 'NULL', '', '{x}']", 'a,b|"q"|∅|NULL||{x}'), ("'{}'", ""), ("'[0:1]={a,b}'", "a|b")]),
    ("grid", "int[][]", "INTEGER[][]", [("'{{1,NULL},{3,4}}'", "[[1, NULL], [3, 4]]"), ("'{}'", "[]")]),
    ("days", "date[]", "DATE[]", [("ARRAY['infinity', '0044-03-15 BC', '2024-01-01']::date[]", "[infinity, '0044-03-15 (BC)', 2024-01-01]")]),
    ("prices", "numeric(10,2)[]", "DECIMAL(10,2)[]", [("ARRAY[1.10, -2]", "[1.10, -2.00]")]),
    ("blobs", "bytea[]", "BLOB[]", [("ARRAY['\\x00ff']::bytea[]", None)]),
    ("spans", "interval[]", "INTERVAL[]", [("ARRAY['1 day -01:00']::interval[]", "['1 day -01:00:00']")]),
    ("docs", "jsonb[]", "JSON[]", [("ARRAY['{\"a\": [1, 2]}']::jsonb[]", None)]),
    ("floats", "float8[]", "DOUBLE[]", [("ARRAY['NaN', '-Infinity', 0.1]::float8[]", "[nan, -inf, 0.1]")]),
    ("flags", "boolean[]", "BOOLEAN[]", [("ARRAY[true, NULL, false]", "[true, NULL, false]")]),
    ("moods", "mood[]", "VARCHAR[]", [("ARRAY['so so']::mood[]", "so so")]),
]  # fmt: skip
MAKE = """
CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy'); CREATE TYPE pair AS (number int, word text);
CREATE DOMAIN percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100); CREATE DOMAIN nick AS varchar(8);
CREATE DOMAIN when_at AS timestamptz;
"""
ROWS = max(len(values) for *_, values in COLUMNS)


@pytest.fixture(scope="module")
def typed(postgres: PostgresServer) -> Any:
    """A database whose table `every_type` has a column of each type; row 0 is NULL in all of them."""
    name = postgres.new_database()
    columns = ", ".join(f"{column} {type_}" for column, type_, _, _ in COLUMNS)
    inserts = "".join(
        f"INSERT INTO every_type VALUES ({row + 1}, {', '.join(values[row][0] if row < len(values) else 'NULL' for *_, values in COLUMNS)});"
        for row in range(ROWS)
    )
    postgres.execute(f"{MAKE} CREATE TABLE every_type (id int PRIMARY KEY, {columns}); INSERT INTO every_type VALUES (0); {inserts}", database=name)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def warehouse(typed: str, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse after a run."""
    file = tmp_path_factory.mktemp("types") / "w.duckdb"
    run = run_job(file, "postgres", source=postgres.socket_url(typed), tables=["every_type"])
    assert run.status().phase == "done", run.log()
    return file


def text_of(file: Path, column: str, type_: str) -> list[str | None]:
    """The column as DuckDB writes it, in the order of the rows; lists of texts with bars between, for texts with commas."""
    shown = f"array_to_string(list_transform({column}, lambda each: coalesce(each, '∅')), '|')" if type_ == "VARCHAR[]" else f"{column}::VARCHAR"
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return [text for (text,) in connection.execute(f"SELECT {shown} FROM every_type ORDER BY id").fetchall()]


@pytest.mark.parametrize(("column", "type_", "values"), [pytest.param(name, here, values, id=name) for name, _, here, values in COLUMNS])
def test_a_type_arrives_as_it_is(warehouse: Path, column: str, type_: str, values: Values) -> None:
    """Each column has its type here, and each value is the one that it is there; NULL is NULL."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        [(found,)] = connection.execute("SELECT data_type FROM duckdb_columns() WHERE table_name = 'every_type' AND column_name = ?", [column]).fetchall()
        assert found == type_
    texts = text_of(warehouse, column, type_)
    assert texts[0] is None
    for text, (_, expected) in zip(texts[1:], values, strict=False):
        if expected is not None:
            assert text == expected
    assert texts[1 + len(values) :] == [None] * (ROWS - len(values))


@pytest.mark.parametrize("beside", ["int", "inet"], ids=["past the engine", "through the engine"])
def test_json_that_duckdb_would_not_cast_arrives_as_it_is(typed: str, postgres: PostgresServer, tmp_path: Path, beside: str) -> None:
    """PostgreSQL's `json` takes half a surrogate pair. Text that is to become JSON here is judged all the same."""
    name = f"halves_{beside}"
    postgres.execute(f"CREATE TABLE {name} (id int, doc json, other {beside}, text text)", database=typed)
    postgres.execute(f"INSERT INTO {name} VALUES (1, '\"\\ud800\"', NULL, '[1')", database=typed)
    file = tmp_path / "w.duckdb"
    run = run_job(file, "postgres", source=postgres.socket_url(typed), tables=[name])
    assert run.status().phase == "done", run.log()
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute(f"SELECT doc::VARCHAR, typeof(doc) FROM {name}").fetchall() == [('"\\ud800"', "JSON")]
    table = [{"name": name, "types": {"text": "JSON"}}]
    refused = run_job(file, "postgres", source=postgres.socket_url(typed), tables=[name], table=table)
    assert (refused.status().error or {})["code"] == "source_refused", refused.log()


def test_text_becomes_the_same_as_copy(warehouse: Path, typed: str, postgres: PostgresServer) -> None:
    """What logical replication brings (text) gives for every value what COPY BINARY gave."""
    with postgres.connect(typed) as connection:
        for name, value in SESSION.items():
            connection.execute(f"SET {name} = '{value}'")
        [table] = describe(connection, ["every_type"])
        names = [column.name for column in table.columns]
        shown = ", ".join(f"CASE WHEN {name} IS NOT NULL THEN concat({name}) END" for name in names)
        rows = connection.execute(f"SELECT {shown} FROM every_type ORDER BY id").fetchall()
    ways = [mapped(column) for column in table.columns]
    prepared = [[None if text is None else way.prepare(text) for way, text in zip(ways, row, strict=True)] for row in rows]
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{warehouse}' AS w (READ_ONLY); SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE came ({', '.join(f'{name} VARCHAR' for name in names)})")
        connection.executemany(f"INSERT INTO came VALUES ({', '.join('?' * len(names))})", prepared)
        made = ", ".join(f"({way.of_text(name)})::{way.type} AS {name}" for way, name in zip(ways, names, strict=True))
        differing = [
            name
            for name in names
            if connection.execute(f"SELECT count(*) FROM (SELECT {made} FROM came) c JOIN w.every_type t USING (id) WHERE c.{name}::VARCHAR IS DISTINCT FROM t.{name}::VARCHAR").fetchall() != [(0,)]
        ]  # fmt: skip
        assert differing == []
        assert connection.execute("SELECT count(*) FROM came").fetchall() == [(ROWS + 1,)]


@pytest.mark.parametrize(
    ("type_", "value", "setting", "expected"),
    [
        ("numeric(5,2)", "'NaN'", {}, "source_refused"),
        ("timestamptz", "'294276-12-31 23:59Z'", {}, "source_refused"),
        ("text[]", "'{{a},{b}}'", {}, "source_refused"),
        ("numeric", "1.23456", {"value": "DECIMAL(10,4)"}, "source_refused"),
        ("numeric", "1.2345000", {"value": "DECIMAL(10,4)"}, "1.2345"),
        ("numeric(5,2)", "'NaN'", {"value": "DOUBLE"}, "nan"),
        ("text[]", "'{{a},{b}}'", {"value": "JSON"}, '[["a"],["b"]]'),
        ("int", "7", {"value": "varchar"}, "7"),
    ],
)
def test_what_does_not_fit_is_refused_and_a_type_of_ones_own_helps(
    postgres: PostgresServer, source: str, tmp_path: Path, type_: str, value: str, setting: dict[str, str], expected: str
) -> None:
    """No value is rounded, cut or left out: the run fails, names the table and the remedy; `types` takes what holds it."""
    from pondkeeper.errors import SourceRefused
    from pondkeeper.kinds.postgres.extracting import pieces

    postgres.execute(f"CREATE TABLE t (value {type_}); INSERT INTO t VALUES ({value})", database=source)
    with postgres.connect(source) as connection:
        [table] = describe(connection, ["t"])
        way = mapped(table.columns[0], setting.get("value", ""))
        [piece] = pieces(table, [way], (), tmp_path, "t", server_version=150_000)
        if expected != "source_refused":
            assert staged(postgres, source, piece) == [(expected,)]
            return
        with pytest.raises(SourceRefused) as refused:
            staged(postgres, source, piece)
        assert "public.t" in refused.value.message
        assert "types" in refused.value.remedy


def test_what_is_staged_without_the_engine_is_the_same(
    typed: str, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column that may go past the engine, with its odd values and without; the control: some did, and some could not."""
    from pondkeeper.engine import extracting
    from pondkeeper.kinds.postgres.extracting import Piece

    taken: list[bool] = []

    def noted(*arguments: Any) -> Any:
        batch = directly(*arguments)
        taken.append(batch is not None)
        return batch

    directly = extracting.directly
    monkeypatch.setattr(extracting, "directly", noted)
    with postgres.connect(typed) as connection:
        [table] = describe(connection, ["every_type"])
    ways = [way for way in map(mapped, table.columns) if way.direct is not None]
    assert len(ways) > 15
    went = {}
    for number, way in enumerate(ways):
        for where in ("id < 2", "true"):
            taken.clear()
            first = staged(postgres, typed, Piece(table, (way,), (where,), tmp_path / f"{number}.arrow", "t"))
            went[way.column, where] = all(taken)
            engines = Mapped(way.column, way.type, way.staged, replace(way.scalar, direct=None))
            assert first == staged(postgres, typed, Piece(table, (engines,), (where,), tmp_path / f"{number}.arrow", "t"))
    assert all(went[way.column, "id < 2"] for way in ways if way.column != "day" and "when" not in way.column), went
    assert not went["day", "true"]
    assert any(went[way.column, "true"] for way in ways)


def staged(postgres: PostgresServer, source: str, piece: Any) -> list[tuple[str]]:
    """What is staged of the piece, as text."""
    from pondkeeper.engine.extracting import Stager
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.postgres.extracting import Source, stage_piece

    with postgres.connect(source, autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        [[snapshot]] = connection.execute("SELECT pg_export_snapshot()").fetchall()
        stager = Stager(piece.file.parent, memory_limit_bytes=1 << 29, threads=1)
        server = Source(postgres.socket_url(source))
        session = server.session(PostgresSettings(), snapshot)
        try:
            stage_piece(session, stager, piece)
        finally:
            session.close()
            server.close()
            stager.close()
    with ExitStack() as opened, duckdb.connect() as connection:
        files = [opened.enter_context(pa.OSFile(str(file))) for file in piece.files]
        connection.register("staged", pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files]))
        return connection.execute("SELECT COLUMNS(*)::VARCHAR FROM staged").fetchall()


@pytest.mark.parametrize(
    ("modifier", "shape"),
    [(-1, (0, 0)), (((10 << 16) | 2) + 4, (10, 2)), (((3 << 16) | (0x800 - 2)) + 4, (3, -2)), (((2 << 16) | 5) + 4, (2, 5))],
)
def test_the_modifier_of_a_numeric_tells_its_shape(modifier: int, shape: tuple[int, int]) -> None:
    """Precision and scale, the latter with its sign; none where none was declared."""
    assert numeric_shape(modifier) == shape


@pytest.mark.parametrize(
    ("text", "items"),
    [("{}", []), ('{a,"b,c",NULL,"NULL"}', ["a", "b,c", None, "NULL"]), ("[0:1]={1,2}", ["1", "2"]), ("{{1},{NULL}}", [["1"], [None]]), (r'{"a\"b\\c"}', ['a"b\\c'])],
)  # fmt: skip
def test_arrays_are_read_as_postgresql_writes_them(text: str, items: list[Any]) -> None:
    """Quotes, backslashes, NULL beside the text NULL, lower bounds, lists of lists."""
    assert parse_array(text) == items

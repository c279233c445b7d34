"""What a query gave out can be ingested again: every type through every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.rendering import answer
from tests.staging.conftest import Ground

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = ["ndjson", "json", "csv", "arrow", "parquet"]
# Values whose text DuckDB itself cannot read back: the longest interval, and on 1.5 the last moment of the range.
UNREADABLE = {"interval": "to_microseconds(9223372036854775807)", "timestamptz": "TIMESTAMPTZ '294247-01-10 04:00:54.775806+00'"}


def table_of(ground: Ground) -> None:
    """The golden statement as a table `given`, and an empty one of its shape, `taken`."""
    ground.run(f"CREATE TABLE given AS FROM ({(GOLDEN / 'hard_types.sql').read_text()})")
    for column, value in UNREADABLE.items():
        ground.run(f'UPDATE given SET "{column}" = NULL WHERE "{column}" = {value}')
    ground.run("CREATE TABLE taken AS FROM given LIMIT 0")


# What docs/reference/types.md says is not kept: types inside of a VARIANT, spaces and digits of JSON, and what is no JSON.
NOT_KEPT = {"variant", "json beyond the standard", "json[]"}


def differences(ground: Ground) -> list[str]:
    """The columns in which the two tables differ, compared as texts, which every type has."""
    columns = [name for name, *_ in ground.run("DESCRIBE given") if name not in NOT_KEPT]
    found = []
    for column in columns:
        name = '"' + column.replace('"', '""') + '"'
        given, taken = (
            sorted(map(str, ground.run(f"SELECT {_text(column, name)} FROM {table}"))) for table in ("given", "taken")
        )
        if given != taken:
            found.append(f"{column}: {set(given) ^ set(taken)}")
    return found


def _text(column: str, name: str) -> str:
    return f"nullif(json({name})::VARCHAR, 'null')" if column == "json" else f"{name}::VARCHAR"


@pytest.mark.parametrize("form", FORMATS)
def test_every_hard_type_comes_back(ground: Ground, form: str) -> None:
    """The golden table of hard types, rendered and ingested again, is the same table."""
    table_of(ground)
    _, body = answer(ground.database, "FROM given", form)

    staged = ground.ingest(body, form, "taken")

    assert staged.rows == ground.run("SELECT count(*) FROM given")[0][0]
    assert differences(ground) == []


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_our_own_binary_answers_are_loaded_as_they_are(ground: Ground, form: str) -> None:
    """What we rendered fits, so it is verified and not written anew."""
    table_of(ground)
    _, body = answer(ground.database, "FROM given", form)

    assert ground.stage(body, form, "taken").is_as_it_came


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_table_made_of_our_own_binary_answer_has_the_same_types(ground: Ground, form: str) -> None:
    """create=true reads the names of the types in the answer's metadata."""
    table_of(ground)
    _, body = answer(ground.database, "FROM given", form)
    ground.run("DROP TABLE taken")

    ground.ingest(body, form, "taken", create=True)

    def types(table: str) -> list[tuple[str, str]]:
        return [(name, kind) for name, kind, *_ in ground.run(f"DESCRIBE {table}")]

    assert types("taken") == types("given")
    assert differences(ground) == []


SMALL_TYPES = [
    "DECIMAL(38,0)", "HUGEINT", "UUID", "BLOB", "BIT", "DATE", "TIMESTAMP_NS", "TIMETZ", "INTERVAL",
    "INTEGER[]", "INTEGER[2]", "STRUCT(a INTEGER, b VARCHAR)", "MAP(VARCHAR, INTEGER)", "UNION(n INTEGER, s VARCHAR)", "JSON",
]  # fmt: skip


@pytest.mark.parametrize("kind", SMALL_TYPES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_column_of_nulls_comes_back(ground: Ground, form: str, kind: str) -> None:
    """NULL is NULL in each format, also beside no value at all."""
    ground.run(f"CREATE TABLE given (id INTEGER, v {kind})")
    ground.run("INSERT INTO given VALUES (1, NULL), (2, NULL)")
    ground.run("CREATE TABLE taken AS FROM given LIMIT 0")
    _, body = answer(ground.database, "FROM given", form)

    ground.ingest(body, form, "taken")

    assert ground.run("SELECT id, v IS NULL FROM taken ORDER BY id") == [(1, True), (2, True)]


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_answer_is_no_rows(ground: Ground, form: str) -> None:
    """A table without rows goes out and comes in."""
    _, body = answer(ground.database, "FROM t", form)

    assert ground.ingest(body, form).rows == 0


def test_a_single_column_of_csv_keeps_its_nulls(ground: Ground) -> None:
    """A row of one NULL is an empty line, which of one column is a row."""
    ground.run("CREATE TABLE one (v VARCHAR)")

    ground.ingest('v\r\nx\r\n\r\n""\r\n', "csv", "one")

    assert ground.run("FROM one") == [("x",), (None,), ("",)]

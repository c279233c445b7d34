"""What separates two words is DuckDB's to say: no character between them gets a forbidden call past the judge."""

from __future__ import annotations

import duckdb
import pytest

from pondkeeper.engine.statements import reading_statement, writing_statement
from pondkeeper.errors import PondkeeperError, StatementNotAllowed

SEPARATORS = ["\u00a0", "\u2000", "\u200b", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "--\r", "/*/**/*/"]


@pytest.fixture
def plain() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:")


def _runs(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    try:
        connection.execute(sql).fetchall()
    except duckdb.Error:
        return False
    return True


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_forbidden_call_is_refused_whatever_stands_around_its_name(
    plain: duckdb.DuckDBPyConnection, separator: str
) -> None:
    sql = f"select * from{separator}query{separator}('select 1')"
    assert _runs(plain, sql)  # the control: to DuckDB it is a call
    with plain, pytest.raises(StatementNotAllowed):
        reading_statement(plain, sql)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("sql", ["create secret s (type http)", "drop secret s", "alter database t set alias to x"])
def test_secrets_and_aliases_are_refused_whatever_stands_between_the_words(
    plain: duckdb.DuckDBPyConnection, separator: str, sql: str
) -> None:
    first, rest = sql.split(" ", 1)
    with plain, pytest.raises(PondkeeperError):
        writing_statement(plain, first + separator + rest)


def test_no_character_of_the_basic_plane_hides_a_call(plain: duckdb.DuckDBPyConnection) -> None:
    got_through = []
    characters = [chr(number) for number in range(1, 0x10000) if not 0xD800 <= number <= 0xDFFF]
    for character in characters:
        sql = f"from{character}checkpoint{character}()"
        if not _passes(plain, sql):
            continue
        if _runs(plain, sql):
            got_through.append(f"U+{ord(character):04X}")
    plain.close()
    assert got_through == []


def _passes(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    try:
        reading_statement(connection, sql)
    except PondkeeperError:
        return False
    return True


def test_a_comment_makes_no_table_of_a_call(plain: duckdb.DuckDBPyConnection) -> None:
    with plain, pytest.raises(StatementNotAllowed):
        reading_statement(plain, "select * from --INTO\n query('select 1')")


@pytest.mark.parametrize(
    "sql",
    [
        "insert into query (a) values (1)",
        "create table if not exists main.glob (a int)",
        "select 'please query\u00a0me (now)'",
    ],
)
def test_tables_and_texts_may_be_called_so(plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    with plain:
        writing_statement(plain, sql) if not sql.startswith("select") else reading_statement(plain, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "from duckdb_databases()",
        'select path from system.main."duckdb_databases"',
        "from pg_catalog.pg_settings",
        "from duckdb_settings\u00a0()",
        "show temp_directory",
        'from (show "allowed_paths")',
        "select current_setting('temp_directory')",
        "select current_setting('temp' || '_directory')",
        "select current_setting($$temp_directory$$)",
        "select current_setting(n) from (values ('temp_directory')) v(n)",
        "select 'temp_directory'.current_setting()",
    ],
)
def test_what_shows_paths_is_refused(plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    with plain, pytest.raises(StatementNotAllowed, match="where the server keeps its files"):
        reading_statement(plain, sql)


@pytest.mark.parametrize("sql", ["select current_setting('threads')", "select 'duckdb_databases'", "show tables"])
def test_what_shows_none_is_not(plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    with plain:
        reading_statement(plain, sql)

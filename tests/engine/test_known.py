"""A statement that was asked before is answered as if it was asked for the first time, and costs less."""

from __future__ import annotations

import duckdb
import pytest

from pondkeeper.engine.render import known
from pondkeeper.engine.render.answer import render
from pondkeeper.engine.render.known import KnownStatements
from pondkeeper.errors import PondkeeperError

UNLIMITED = 2**62


def _body(connection: duckdb.DuckDBPyConnection, known: KnownStatements, sql: str, parameters: object = None) -> bytes:
    cursor = connection.cursor()
    statement = known.statement(cursor, sql)
    answer = render(cursor, statement, parameters, "json", UNLIMITED, UNLIMITED, 7, known)
    return b"".join(answer.chunks()).rsplit(b',"elapsed_ms"')[0]


@pytest.mark.parametrize(
    "sql", ["SELECT 1 AS a, 'x' AS b", "SELECT i FROM range(3) AS r(i);", "EXPLAIN SELECT 1", "VALUES (1.5)"]
)
def test_a_repeated_statement_has_the_same_answer(sql: str) -> None:
    """The second answer, which knows judgement and columns, is the first one."""
    statements = KnownStatements()
    with duckdb.connect() as connection:
        assert _body(connection, statements, sql) == _body(connection, statements, sql)


def test_values_of_parameters_decide_types_each_time() -> None:
    """The same text with other parameters is bound anew: a number after a text is a number."""
    statements = KnownStatements()
    with duckdb.connect() as connection:
        sql = "SELECT ? AS a"
        assert b'"VARCHAR"' in _body(connection, statements, sql, ["x"])
        assert b'"BIGINT"' in _body(connection, statements, sql, [2**40])


def test_a_refusal_is_repeated() -> None:
    """What is refused once is refused again, however often it is asked."""
    statements = KnownStatements()
    with duckdb.connect() as connection:
        for _ in range(3):
            with pytest.raises(PondkeeperError):
                statements.statement(connection.cursor(), "DROP TABLE t")


def test_only_so_many_statements_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones used last stay; very long ones are never kept."""
    monkeypatch.setattr(known, "MOST_STATEMENTS", 2)
    recent = known.Recent[int]()
    for number, text in enumerate(("a", "b")):
        recent.keep(text, number)
    assert recent.get("a") == 0
    recent.keep("c", 2)
    recent.keep("x" * (known.LONGEST_STATEMENT + 1), 3)
    assert [recent.get(text) for text in ("a", "b", "c", "x" * (known.LONGEST_STATEMENT + 1))] == [0, None, 2, None]


def test_the_columns_of_a_pivot_are_looked_up_each_time(guest: duckdb.DuckDBPyConnection) -> None:
    """A PIVOT without IN takes its columns from its data, and now() makes other data: nothing of it is remembered."""
    known = KnownStatements()
    sql = "pivot (select epoch_us(now()) as moment) on moment using count(*)"
    names = set()
    for _ in range(2):
        cursor = guest.cursor()
        answer = render(cursor, known.statement(cursor, sql), None, "json", 10, 10_000, 1, known)
        list(answer.chunks())
        names.update(column["name"] for column in answer.columns)

    assert len(names) == 2

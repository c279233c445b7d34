"""The proof of the kill rounds: a look at a real database sees every fault that was put into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from campaigns.ledger import LOOK, SCHEMA, Book, Found, Told, write_of

WRITES = 12


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Two clients have written their numbers 1 to 12."""
    with duckdb.connect() as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        for n in range(1, WRITES + 1):
            for client in (0, 1):
                apply(connection, client, n)
        yield connection


def apply(database: duckdb.DuckDBPyConnection, client: int, n: int) -> None:
    for sql, parameters in write_of(client, n):
        database.execute(sql, parameters)


def told(**changes: Any) -> dict[int, Told]:
    """What both were told: all is committed; `changes` are of client 1."""
    both = {client: Told(sent=WRITES, committed=list(range(1, WRITES + 1))) for client in (0, 1)}
    for name, value in changes.items():
        setattr(both[1], name, value)
    return both


def look(database: duckdb.DuckDBPyConnection, book: Book, said: dict[int, Told]) -> list[str]:
    row = database.execute(LOOK, [book.place]).fetchone()
    assert row is not None
    return book.judge(Found.of_row(row), {client: len(each.committed) for client, each in said.items()}, said)


def test_what_is_right_is_not_accused(database: duckdb.DuckDBPyConnection) -> None:
    """Also in a second look, which reads only what is new, and beside a write that nobody has been answered yet."""
    book, said = Book(), told()
    assert look(database, book, said) == []
    apply(database, 0, WRITES + 1)
    said[0].sent += 1
    assert look(database, book, said) == []
    assert book.place == 2 * WRITES + 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("DELETE FROM entries WHERE client = 1 AND n = 5", "acknowledged and lost: client 1, numbers [5]"),
        ("INSERT INTO entries VALUES (1, 12, 0)", "applied twice: client 1, numbers [12]"),
        ("INSERT INTO entries VALUES (1, 13, 0)", "there and never sent: client 1, numbers [13]"),
        ("INSERT INTO entries VALUES (7, 1, 0)", "there are rows of client 7"),
        ("UPDATE accounts SET balance = balance + 1 WHERE id = 3", "half applied: 1 balances"),
        ("DELETE FROM journal WHERE client = 1 AND n = 3 AND amount > 0", "half applied: 1 transfers"),
        ("DELETE FROM journal WHERE client = 1 AND n = 3", "half applied: 7 transfers in the journal, 8"),
    ],
)
def test_a_fault_in_the_database_is_seen(database: duckdb.DuckDBPyConnection, fault: str, says: str) -> None:
    """Whatever is missing, doubled, half or invented."""
    database.execute(fault)
    assert any(text.startswith(says) for text in look(database, Book(), told())), look(database, Book(), told())


def test_another_order_is_seen(database: duckdb.DuckDBPyConnection) -> None:
    """A number that stands behind a later one of its client."""
    database.execute("DELETE FROM entries WHERE client = 1 AND n = 2")
    database.execute("INSERT INTO entries VALUES (1, 2, 0)")
    assert any(text.startswith("out of order: client 1") for text in look(database, Book(), told()))


def test_a_refused_write_that_is_there_is_seen(database: duckdb.DuckDBPyConnection) -> None:
    """An answer that was not true."""
    said = told(refused={WRITES}, committed=list(range(1, WRITES)))
    assert look(database, Book(), said) == [f"refused and there: client 1, numbers [{WRITES}]"]


def test_an_unknown_write_may_be_there_or_not(database: duckdb.DuckDBPyConnection) -> None:
    """Unknown is an honest answer to both."""
    assert look(database, Book(), told(unknown={WRITES}, committed=list(range(1, WRITES)))) == []
    assert look(database, Book(), told(sent=WRITES + 1, unknown={WRITES + 1})) == []


def test_what_was_seen_once_and_is_gone_is_seen(database: duckdb.DuckDBPyConnection) -> None:
    """Though a second look reads only new rows, the count of all of them must agree."""
    book, said = Book(), told()
    assert look(database, book, said) == []
    database.execute("DELETE FROM entries WHERE client = 0 AND n = 1")
    assert any(text.startswith("seen and lost") for text in look(database, book, said))

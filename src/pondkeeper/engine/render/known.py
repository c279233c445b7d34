"""What is known of the statements that were asked on one snapshot, so that a client that repeats itself pays once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

import duckdb

from pondkeeper.engine.render.types import Column
from pondkeeper.engine.statements import ReadingStatement, reading_statement

MOST_STATEMENTS: Final = 256
LONGEST_STATEMENT: Final = 16 * 1024
_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """The values that were used last, by text."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, _Value] = OrderedDict()

    def get(self, text: str) -> _Value | None:
        value = self._values.get(text)
        if value is not None:
            self._values.move_to_end(text)
        return value

    def keep(self, text: str, value: _Value) -> _Value:
        if len(text) <= LONGEST_STATEMENT:
            self._values[text] = value
            if len(self._values) > MOST_STATEMENTS:
                self._values.popitem(last=False)
        return value


class KnownStatements:
    """Judgement and columns of statements, by their text. It belongs to one connection to one snapshot.

    Why that is sound: a snapshot never changes, and no statement that passes the gate changes what a name means. With
    parameters it would not be: their values decide types. A refusal is not kept: only what was let in is worth it.
    """

    def __init__(self) -> None:
        self._statements: Recent[ReadingStatement] = Recent()
        self._columns: Recent[tuple[Column, ...]] = Recent()

    def statement(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> ReadingStatement:
        """The text as one reading statement, or the refusal that `reading_statement` raises."""
        return self._statements.get(sql) or self._statements.keep(sql, reading_statement(cursor, sql))

    def columns(self, source: str) -> tuple[Column, ...] | None:
        """The columns of a table expression without parameters that was bound before."""
        return self._columns.get(source)

    def keep_columns(self, source: str, columns: tuple[Column, ...]) -> None:
        """Remember what binding it found."""
        self._columns.keep(source, columns)

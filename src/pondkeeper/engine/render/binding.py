"""From a reading statement to its columns, and to the SQL that renders it. Binding runs nothing of the statement.

Trap: a statement is bound before it runs, so this belongs on read-only connections only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb

from pondkeeper.engine.parameters import Parameters
from pondkeeper.engine.render.known import KnownStatements
from pondkeeper.engine.render.types import Column, described
from pondkeeper.engine.statements import ReadingStatement, wrapped

RELATIONS_TAKE_PARAMETERS: Final = int(duckdb.__version__.split(".")[0]) >= 2
"""On 1.5 `sql(query, params=…)` runs the query and keeps its whole result; on 2.0 it only binds."""


@dataclass(frozen=True)
class Bound:
    """A statement with its columns known and its parameters ready."""

    cursor: duckdb.DuckDBPyConnection
    source: str
    parameters: Parameters | None
    columns: tuple[Column, ...]

    def rendered(self, row: Callable[[Sequence[Column], Sequence[str]], str]) -> str:
        """SQL that gives one text per row."""
        references = [f"c{place}" for place in range(len(self.columns))]
        return f"SELECT {row(self.columns, references)} FROM {self.source} AS t({', '.join(references)})"

    def selected(self, convert: Callable[[Column, str], str]) -> str:
        """SQL that gives the columns themselves, each as `convert` wants it, under their own names or others."""
        references = [f"c{place}" for place in range(len(self.columns))]
        values = [f"{convert(column, ref)} AS {ref}" for column, ref in zip(self.columns, references, strict=True)]
        return f"SELECT {', '.join(values)} FROM {self.source} AS t({', '.join(references)})"


def bind(
    cursor: duckdb.DuckDBPyConnection,
    statement: ReadingStatement,
    parameters: Parameters | None,
    known: KnownStatements,
) -> Bound:
    """The statement bound; an EXPLAIN is run, and the rows it gave stand in its place as parameters."""
    if statement.kind == "explain":
        return _explained(cursor, statement, parameters)
    source = wrapped(statement.sql)
    # Why not parameters: their values decide types. Why not a PIVOT: with now() in it, the next one has other columns.
    may_keep = parameters is None and statement.kind == "select"
    columns = known.columns(source) if may_keep else None
    if columns is None:
        columns = _columns(cursor, source, parameters)
        if may_keep:
            known.keep_columns(source, columns)
    return Bound(cursor, source, parameters, columns)


def _columns(cursor: duckdb.DuckDBPyConnection, source: str, parameters: Parameters | None) -> tuple[Column, ...]:
    query = f"SELECT * FROM {source}"
    if parameters is None or RELATIONS_TAKE_PARAMETERS:
        relation = cursor.sql(query, params=parameters)
        return tuple(Column(name, described(kind)) for name, kind in zip(relation.columns, relation.types, strict=True))
    found = cursor.execute(f"{query} LIMIT 0", parameters).description or []
    return tuple(Column(entry[0], described(entry[1])) for entry in found)


def _explained(cursor: duckdb.DuckDBPyConnection, statement: ReadingStatement, parameters: Parameters | None) -> Bound:
    rows = cursor.execute(statement.sql, parameters).fetchall()
    names = [entry[0] for entry in cursor.description or []]
    values = ", ".join(f"({', '.join('?' for _ in row)})" for row in rows)
    source = f"(SELECT * FROM (VALUES {values}) AS e({', '.join(names)}))"
    given = [str(value) for row in rows for value in row]
    return Bound(cursor, source, given, _columns(cursor, source, given))

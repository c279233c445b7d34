"""The shape of some schemas of a database, in memory: tables with their columns and, but for chosen ones, no rows.

What a program would do to the database is done to its shadow first; what it would have written can then be done in one
transaction, by somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from pondkeeper.engine.plain import Connection
from pondkeeper.engine.render import sql as written

SHAPING: Final = frozenset({"CREATE", "ALTER", "DROP"})
SCHEMAS: Final = """
    SELECT schema_name FROM duckdb_schemas()
    WHERE database_name = current_database() AND list_contains($1, lower(schema_name))"""
TABLES: Final = """
    SELECT schema_name, table_name, list(column_name ORDER BY column_index), list(data_type ORDER BY column_index)
    FROM duckdb_columns()
    WHERE database_name = current_database() AND list_contains($1, lower(schema_name))
    GROUP BY ALL ORDER BY ALL"""
COLUMNS: Final = """
    SELECT column_name, data_type FROM duckdb_columns()
    WHERE database_name = current_database() AND lower(schema_name) = lower($1) AND lower(table_name) = lower($2)
    ORDER BY column_index"""


@dataclass(frozen=True)
class Statement:
    """One statement: whether it only reads, and whether it changes what tables there are and not only their rows."""

    sql: str
    reads: bool
    shapes: bool


def split(sql: str) -> list[Statement]:
    """The statements of a text, by DuckDB's own parser. Raises duckdb.Error."""
    found = []
    for statement in duckdb.extract_statements(sql):
        kind = statement.type.name.removeprefix("STATEMENT_TYPE_")
        found.append(Statement(statement.query.strip(), kind == "SELECT", kind in SHAPING))
    return found


class Shadow:
    """An empty copy of schemas of a database. Its connection is handed out: one thread at a time."""

    def __init__(self, source: Connection | None, schemas: Collection[str]) -> None:
        self.connection: Connection = duckdb.connect(":memory:", config={"threads": 1})
        self.connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        if source is not None:
            self._copy_shapes(source, schemas)

    def _copy_shapes(self, source: Connection, schemas: Collection[str]) -> None:
        names = [name.lower() for name in schemas]
        for (schema,) in source.execute(SCHEMAS, [names]).fetchall():
            self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {written.name(schema)}")
        for schema, table, columns, types in source.execute(TABLES, [names]).fetchall():
            shape = ", ".join(f"{written.name(name)} {kind}" for name, kind in zip(columns, types, strict=True))
            self.connection.execute(f"CREATE TABLE {written.name(schema)}.{written.name(table)} ({shape})")

    def copy_rows(self, source: Connection, schema: str, table: str, condition: str = "true", *values: Any) -> None:
        """Take over the rows of a table that the condition names, if there is such a table in both."""
        if not self.columns(schema, table):
            return
        place = f"{written.name(schema)}.{written.name(table)}"
        rows = source.execute(f"SELECT * FROM {place} WHERE {condition}", list(values)).fetchall()
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.connection.executemany(f"INSERT INTO {place} VALUES ({marks})", rows)

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """The columns of a table and their types; none when there is no such table."""
        return dict(self.connection.execute(COLUMNS, [schema, table]).fetchall())

    def columns_of_file(self, file: str) -> frozenset[str]:
        """The columns of a Parquet file, in lower case."""
        described = self.connection.execute("SELECT name FROM parquet_schema($1) WHERE coalesce(num_children, 0) = 0", [file])
        return frozenset(name.lower() for (name,) in described.fetchall())

    def execute(self, sql: str, parameters: Sequence[Any] | None = None) -> Connection:
        """Run one statement; the cursor with its answer. Raises duckdb.Error."""
        return self.connection.execute(sql, parameters)

    def close(self) -> None:
        """Forget it."""
        self.connection.close()

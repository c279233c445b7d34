"""What a database holds: its tables with their columns, its other objects, and fingerprints of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from pondkeeper.engine.idempotency import SCHEMA as OWN_SCHEMA

_OBJECTS: Final = """
    SELECT 'view' AS kind, schema_name, view_name AS name, sql FROM duckdb_views()
        WHERE database_name = $1 AND NOT internal
    UNION ALL SELECT 'index', schema_name, index_name, sql FROM duckdb_indexes() WHERE database_name = $1
    UNION ALL SELECT 'sequence', schema_name, sequence_name, sql FROM duckdb_sequences() WHERE database_name = $1
    UNION ALL SELECT 'macro', schema_name, function_name, string_agg(concat_ws(' ', parameters, macro_definition), ';' ORDER BY parameters::VARCHAR)
        FROM duckdb_functions() WHERE database_name = $1 AND NOT internal AND macro_definition IS NOT NULL GROUP BY ALL
    UNION ALL SELECT 'type', schema_name, type_name, concat_ws(' ', logical_type, labels) FROM duckdb_types()
        WHERE database_name = $1 AND NOT internal
    ORDER BY ALL
"""

__all__ = ["OWN_SCHEMA", "Table", "fingerprint", "literal", "objects_of", "quoted", "tables_of"]


@dataclass(frozen=True)
class Table:
    """A table: `columns` are (name, type) in their order, `key` the columns of its primary key."""

    schema: str
    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]

    def within(self, catalog: str) -> str:
        """Its full name in SQL, in that catalog."""
        return ".".join(map(quoted, (catalog, self.schema, self.name)))

    @property
    def shown(self) -> str:
        """Its name for people; the schema only where it is not `main`."""
        return self.name if self.schema == "main" else f"{self.schema}.{self.name}"


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def tables_of(cursor: duckdb.DuckDBPyConnection, catalog: str) -> list[Table]:
    """Every table of a catalog, by schema and name."""
    columns: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for schema, table, column, kind in cursor.execute(
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = $1 AND NOT internal ORDER BY schema_name, table_name, column_index",
        [catalog],
    ).fetchall():
        columns.setdefault((schema, table), []).append((column, kind))
    keys = {
        (schema, table): tuple(names)
        for schema, table, names in cursor.execute(
            "SELECT schema_name, table_name, constraint_column_names FROM duckdb_constraints() "
            "WHERE database_name = $1 AND constraint_type = 'PRIMARY KEY'",
            [catalog],
        ).fetchall()
    }
    names = cursor.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = $1 AND NOT internal ORDER BY ALL",
        [catalog],
    ).fetchall()
    return [Table(schema, name, tuple(columns[schema, name]), keys.get((schema, name), ())) for schema, name in names]


def objects_of(cursor: duckdb.DuckDBPyConnection, catalog: str) -> dict[tuple[str, str], str]:
    """What else there is: (kind, name) → its definition."""
    found = cursor.execute(_OBJECTS, [catalog]).fetchall()
    return {(kind, name if schema == "main" else f"{schema}.{name}"): sql or "" for kind, schema, name, sql in found}


def fingerprint(cursor: duckdb.DuckDBPyConnection, columns: Sequence[str], source: str) -> tuple[Any, ...]:
    """Rows and two sums over their hashes, whatever their order; `columns` and `source` are SQL.

    Equal for equal rows; of different ones it is equal once in 2^64.
    """
    hashed = f"hash({', '.join(columns)})" if columns else "0::UBIGINT"
    row = cursor.execute(
        f"SELECT count(*), coalesce(sum(h::HUGEINT), 0), coalesce(bit_xor(h), 0) FROM (SELECT {hashed} AS h FROM {source})"
    ).fetchone()
    assert row is not None, "an aggregate has one row"
    return row

"""The shape of a table as rows must fit it: plain data that travels from the writer or a snapshot to the stager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import duckdb
import msgspec
from duckdb.sqltypes import DuckDBPyType

from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import Column, described

# Trap: the type of a column may be an alias (CREATE TYPE), which no other database knows. So types are spelled by parts.
_BARE: Final = {"varchar": "VARCHAR", "time_ns": "TIME_NS", "timestamptz_ns": "TIMESTAMPTZ_NS"}


@dataclass(frozen=True)
class TableColumn:
    """A column: `type` is spelled without aliases; `is_optional`: rows need not have it."""

    name: str
    type: str
    is_nullable: bool = True
    is_optional: bool = True
    is_generated: bool = False


@dataclass(frozen=True)
class TableShape:
    """A table by its real names, its columns in order and its primary key."""

    schema: str
    table: str
    columns: tuple[TableColumn, ...]
    primary_key: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The table as SQL names it."""
        return f"{sql.name(self.schema)}.{sql.name(self.table)}"

    def column(self, name: str) -> TableColumn | None:
        """The column of that name, whatever the case of its letters."""
        by_name = {column.name.lower(): column for column in self.columns}
        return by_name.get(name.lower())

    def to_wire(self) -> dict[str, Any]:
        """The shape as plain data."""
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> TableShape:
        """The shape that `to_wire` described."""
        return msgspec.convert(wire, cls)


def spelled(duck: DuckDBPyType) -> str:
    """The type by its parts, as any DuckDB reads it."""
    identity = duck.id
    if identity in ("list", "array", "struct", "map", "union", "enum"):
        return _nested(duck, identity)
    if identity == "varchar":
        return "JSON" if str(duck) == "JSON" else "VARCHAR"
    if identity == "decimal":
        digits = dict(duck.children)
        return f"DECIMAL({digits['precision']},{digits['scale']})"
    if identity in ("geometry", "tuple"):
        return str(duck)
    return _BARE.get(identity, identity.upper())


def _nested(duck: DuckDBPyType, identity: str) -> str:
    children: list[tuple[str, Any]] = list(duck.children)
    if identity == "enum":
        return f"ENUM({', '.join(map(sql.literal, children[0][1]))})"
    if identity == "list":
        return f"{spelled(children[0][1])}[]"
    if identity == "array":
        return f"{spelled(children[0][1])}[{children[1][1]}]"
    if identity == "map":
        return f"MAP({spelled(children[0][1])}, {spelled(children[1][1])})"
    if identity == "union":
        children = children[1:]  # the first is the tag
    parts = (f"{sql.name(name)} {spelled(child)}" if name else spelled(child) for name, child in children)
    return f"{identity.upper()}({', '.join(parts)})"


def columns_of(cursor: duckdb.DuckDBPyConnection, source: str) -> list[Column]:
    """The columns of a table or a view, bound and not read."""
    relation = cursor.sql(f"SELECT * FROM {source}")
    kinds = (described(duckdb.sqltype(spelled(kind))) for kind in relation.types)
    return [Column(name, kind) for name, kind in zip(relation.columns, kinds, strict=True)]


def table_shape(cursor: duckdb.DuckDBPyConnection, schema: str, table: str) -> TableShape | None:
    """The shape of the table, of whatever case its name is given in; None when there is no such table."""
    found = cursor.execute(_FIND, [schema, table]).fetchall()
    if not found:
        return None
    schema, table, definition = found[0]
    rows = cursor.execute(_COLUMNS, [schema, table]).fetchall()
    keys = cursor.execute(_KEY, [schema, table]).fetchall()
    relation = cursor.sql(f"SELECT * FROM {sql.name(schema)}.{sql.name(table)}")
    types = dict(zip(relation.columns, relation.types, strict=True))
    columns = tuple(
        TableColumn(
            name,
            spelled(types[name]),
            is_nullable=nullable,
            is_optional=nullable or default is not None,
            is_generated=_is_generated(definition, name, types[name]),
        )
        for name, nullable, default in rows
    )
    return TableShape(schema, table, columns, tuple(keys[0][0]) if keys else ())


def _is_generated(definition: str, name: str, duck: DuckDBPyType) -> bool:
    """Whether the column is generated. DuckDB lists such columns like any other; only the table's definition tells."""
    written = (f"{spelling} {duck} GENERATED ALWAYS AS(" for spelling in (name, sql.name(name)))
    return any(text in definition for text in written)


# Why not the case as given: DuckDB finds tables and columns whatever the case of their letters, and so do we.
_FIND: Final = """SELECT schema_name, table_name, sql FROM system.main.duckdb_tables()
    WHERE database_name = current_database() AND NOT internal AND NOT temporary
    AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"""
_COLUMNS: Final = """SELECT column_name, is_nullable, column_default FROM system.main.duckdb_columns()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY column_index"""
_KEY: Final = """SELECT constraint_column_names FROM system.main.duckdb_constraints()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ? AND constraint_type = 'PRIMARY KEY'"""

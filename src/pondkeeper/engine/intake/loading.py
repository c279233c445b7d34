"""Loading: staged rows go into their table, in the writer's open transaction.

The writer reads the staged file through Arrow, on the cursor of its transaction: DuckDB's own readers would need external
access, which would open the same folder to every statement from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec

from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.shape import TableColumn, TableShape, table_shape
from pondkeeper.engine.intake.sources.columnar import ColumnarSource
from pondkeeper.engine.intake.values import from_value
from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import described
from pondkeeper.errors import PondkeeperError, TableChanged

_SOURCE: Final = "s"
_TARGET: Final = "t"


@dataclass(frozen=True)
class Load:
    """A staged body and what it was staged for; `shape` is None where there was no table.

    `broken`: where it is to be written which rows break constraints of the table; None when one that does refuses all.
    """

    schema: str
    table: str
    shape: TableShape | None
    mode: str
    path: str
    format: str
    columns: tuple[tuple[str, str], ...]
    new: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]
    rows: int
    broken: str | None = None

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Load:
        """The load that the keeper described."""
        return msgspec.convert(wire, cls)


def load(cursor: duckdb.DuckDBPyConnection, wanted: Load) -> int:
    """Load the rows; how many. Raises TableChanged when the table is not what they were staged for."""
    now = table_shape(cursor, wanted.schema, wanted.table)
    if now != wanted.shape:
        raise TableChanged(shape=now.to_wire() if now else None)
    shape = _prepared(cursor, wanted)
    if not wanted.columns:  # an empty body
        return 0
    source = ColumnarSource(Path(wanted.path), wanted.format, verify=False)
    attempt = Pass(cursor, source.columns([name for name, _ in wanted.columns]))
    with attempt as view:
        types = {column.name: described(cursor.sqltype(column.type)) for column in shape.columns}
        values = [
            f"{from_value(types[target], view.types[name], sql.name(name))} AS {sql.name(target)}"
            for name, target in wanted.columns
        ]
        rows = f"SELECT {', '.join(values)} FROM {view.name}"
        statement = _merge(shape, wanted, rows) if wanted.mode == "upsert" else _insert(shape, wanted, rows)
        [(loaded,)] = attempt.execute(statement).fetchall()
    if not _is_all(wanted, loaded):
        # Why: it would mean that rows got lost between the stager and here; nothing of it may be committed.
        raise PondkeeperError(private=f"{loaded} rows were loaded, and {wanted.rows} were staged")
    return wanted.rows


def _is_all(wanted: Load, loaded: int) -> bool:
    """Whether the engine has counted what it must. An upsert may change several rows by one, or have nothing to change."""
    if wanted.mode != "upsert":
        return loaded == wanted.rows
    only_keys = all(target in wanted.keys for _, target in wanted.columns)
    return only_keys or loaded >= wanted.rows


def _prepared(cursor: duckdb.DuckDBPyConnection, wanted: Load) -> TableShape:
    """The table as the rows need it: made, with its new columns, emptied."""
    new = tuple(TableColumn(name, type_) for name, type_ in wanted.new)
    if wanted.shape is None:
        shape = TableShape(wanted.schema, wanted.table, new)
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {sql.name(wanted.schema)}")
        cursor.execute(f"CREATE TABLE {shape.reference} ({', '.join(map(_defined, new))})")
        return shape
    shape = wanted.shape
    for column in new:
        cursor.execute(f"ALTER TABLE {shape.reference} ADD COLUMN {_defined(column)}")
    if wanted.mode == "replace":
        cursor.execute(f"DELETE FROM {shape.reference}")
    return TableShape(shape.schema, shape.table, shape.columns + new, shape.primary_key)


def _defined(column: TableColumn) -> str:
    return f"{sql.name(column.name)} {column.type}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(sql.name, names))


def _insert(shape: TableShape, wanted: Load, rows: str) -> str:
    targets = [target for _, target in wanted.columns]
    return f"INSERT INTO {shape.reference} ({_names(targets)}) {rows}"


def _merge(shape: TableShape, wanted: Load, rows: str) -> str:
    """Rows whose keys are there are changed, in the columns that came; the others are inserted."""
    targets = [target for _, target in wanted.columns]
    same = " AND ".join(f"{_of(_TARGET, key)} IS NOT DISTINCT FROM {_of(_SOURCE, key)}" for key in wanted.keys)
    changed = [name for name in targets if name not in wanted.keys]
    assignments = ", ".join(f"{sql.name(name)} = {_of(_SOURCE, name)}" for name in changed)
    matched = f"UPDATE SET {assignments}" if changed else "DO NOTHING"
    values = ", ".join(_of(_SOURCE, name) for name in targets)
    return (
        f"MERGE INTO {shape.reference} AS {_TARGET} USING ({rows}) AS {_SOURCE} ON {same}"
        f" WHEN MATCHED THEN {matched} WHEN NOT MATCHED THEN INSERT ({_names(targets)}) VALUES ({values})"
    )


def _of(alias: str, name: str) -> str:
    return f"{alias}.{sql.name(name)}"


"""Equal one-row INSERTs as one: the rows of many requests in one Arrow table.

Only what certainly means the same is fused: `INSERT INTO t (a, b) VALUES (?, ?)` with nothing but placeholders, and at
each place values of one type as DuckDB would bind them. A fused insert that fails says nothing about its members:
whoever fuses runs them again in smaller pieces, down to each one alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import duckdb
import pyarrow as pa

_NAME: Final = r'(?:\w+|"(?:[^"]|"")+")'
_TUPLE: Final = re.compile(
    rf"\s*(?P<head>INSERT\s+INTO\s+{_NAME}(?:\s*\.\s*{_NAME}){{0,2}}\s*(?:\((?:\s*{_NAME}\s*,)*\s*{_NAME}\s*\))?)"
    r"\s*VALUES\s*\(\s*(?P<items>(?:\?|\$\d+)(?:\s*,\s*(?:\?|\$\d+))*)\s*\)\s*;?\s*",
    re.IGNORECASE,
)
_VIEW: Final = "__pondkeeper_fused_rows"
_MAX_SQL_CHARS: Final = 10_000
_INT32: Final = range(-(2**31), 2**31)
_INT64: Final = range(-(2**63), 2**63)

# What DuckDB makes of a Python value when it binds one, so that a cast to the column's type is the same cast.
_ARROW: Final[dict[str, pa.DataType]] = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "varchar": pa.string(),
}
Kinds = tuple[str, ...]


@dataclass(frozen=True)
class RowInsert:
    """An INSERT of one row of placeholders: `head` is all before VALUES, `places` which parameter stands where."""

    head: str
    places: tuple[int, ...]

    def row(self, parameters: object) -> list[Any] | None:
        """The row in the order of the columns; None when the parameters do not fit, which DuckDB shall say itself."""
        if not isinstance(parameters, list) or len(parameters) != len(self.places):
            return None
        return [parameters[place] for place in self.places]


@lru_cache(maxsize=512)
def row_insert(sql: str) -> RowInsert | None:
    """The statement as a row to fuse, or None."""
    found = _TUPLE.fullmatch(sql) if len(sql) <= _MAX_SQL_CHARS else None
    if found is None:
        return None
    items = [item.strip() for item in found["items"].split(",")]
    places = [int(item[1:]) - 1 if item != "?" else index for index, item in enumerate(items)]
    is_mixed = len({item[0] for item in items}) > 1
    if is_mixed or sorted(places) != list(range(len(items))):
        return None
    return RowInsert(found["head"], tuple(places))


def kinds_of(row: Sequence[Any]) -> Kinds | None:
    """The type of each value as DuckDB binds it; None when one is not to be fused."""
    kinds = tuple(map(_kind, row))
    return None if "" in kinds else kinds


def joined(these: Kinds, those: Kinds) -> Kinds | None:
    """The types of rows of both kinds in one table; None when a place has two types. NULL goes with all."""
    kinds = tuple(a if b in (a, "null") else b if a == "null" else "" for a, b in zip(these, those, strict=True))
    return None if "" in kinds else kinds


def insert_rows(cursor: duckdb.DuckDBPyConnection, insert: RowInsert, rows: Sequence[Sequence[Any]], kinds: Kinds) -> int:
    """Insert the rows in their order by one statement; how many were inserted."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, _ARROW[kind]) for column, kind in zip(columns, kinds, strict=True)]
    table = pa.Table.from_arrays(arrays, names=[f"c{place}" for place in range(len(arrays))])
    cursor.register(_VIEW, table)
    try:
        found = cursor.execute(f'{insert.head} SELECT * FROM temp.main."{_VIEW}"').fetchone()
    finally:
        _unregister(cursor)
    return int(found[0]) if found else 0


def _unregister(cursor: duckdb.DuckDBPyConnection) -> None:
    try:
        cursor.unregister(_VIEW)
    except duckdb.Error:  # Why: in a transaction that has failed the view cannot be dropped; the rollback drops it.
        return


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INT32 else "bigint" if value in _INT64 else ""
    return "double" if isinstance(value, float) else "varchar" if isinstance(value, str) else ""

"""The first outcome of a write by its Idempotency-Key, in the database itself: it is there if and only if the write is.

`_pondkeeper.idempotency` is made when the first key comes. Written in the transaction of the write it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb
import msgspec

from pondkeeper.engine.faults import translated
from pondkeeper.engine.fusing import RowInsert, insert_rows

_TABLE: Final = "_pondkeeper.idempotency"
_COLUMNS: Final = "(key, digest, rows_changed, committed_at)"
_MAKE: Final = (
    "CREATE SCHEMA IF NOT EXISTS _pondkeeper",
    f"""CREATE TABLE IF NOT EXISTS {_TABLE} (
        key VARCHAR PRIMARY KEY, digest VARCHAR NOT NULL, rows_changed VARCHAR NOT NULL, committed_at TIMESTAMP NOT NULL
    )""",
)
_ROW: Final = RowInsert(f"INSERT INTO {_TABLE} {_COLUMNS}", (0, 1, 2, 3))
_PRUNED_AT_ONCE: Final = 10_000
_FUSED_AT_LEAST: Final = 4


@dataclass(frozen=True)
class Record:
    """What is remembered of a committed write."""

    key: str
    digest: str
    rows_changed: list[int]


def known(cursor: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, Record]:
    """The records of those of the keys that were used. Makes the table where there is none; not in a transaction."""
    with translated():
        try:
            found = _look_up(cursor, keys)
        except duckdb.CatalogException:
            for statement in _MAKE:
                cursor.execute(statement)
            return {}
        return {key: Record(key, digest, msgspec.json.decode(rows, type=list[int])) for key, digest, rows in found}


def _look_up(cursor: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> list[tuple[str, str, str]]:
    marks = ", ".join("?" * len(keys))
    query = f"SELECT key, digest, rows_changed FROM {_TABLE} WHERE key IN ({marks})"
    return cursor.execute(query, list(keys)).fetchall()


def remember(cursor: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> None:
    """Write the records in the open transaction."""
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    rows = [[each.key, each.digest, msgspec.json.encode(each.rows_changed).decode(), now] for each in records]
    with translated():
        if len(rows) >= _FUSED_AT_LEAST:
            insert_rows(cursor, _ROW, rows, ("varchar",) * 4)
            return
        for row in rows:
            cursor.execute(f"{_ROW.head} VALUES (?, ?, ?, ?)", row)


def prune(cursor: duckdb.DuckDBPyConnection, keep_s: float) -> int:
    """Forget some of the records that are older than `keep_s`; how many."""
    oldest = (datetime.now(UTC) - timedelta(seconds=keep_s)).replace(tzinfo=None)
    some = f"SELECT rowid FROM {_TABLE} WHERE committed_at < ? LIMIT {_PRUNED_AT_ONCE}"
    with translated():
        try:
            found = cursor.execute(f"DELETE FROM {_TABLE} WHERE rowid IN ({some})", [oldest]).fetchone()
        except duckdb.CatalogException:  # the table was dropped, with all it held
            return 0
    return int(found[0]) if found else 0

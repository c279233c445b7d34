"""The first outcome of a write by its Idempotency-Key, in the database itself: it is there if and only if the write is.

Tables of the schema `_pondkeeper`, made when the first key comes: `idempotency`, `idempotency_1` and so on. Records go into
the newest one, in the transaction of the write they are about; its primary key refuses a key that it has. When its oldest
record has been kept for long enough, the next table is begun, and one whose records are all old is dropped whole. Why not
rows that are deleted: with an index, 1.5 takes 25 µs for each, and never gives their room back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import msgspec

from pondkeeper.engine.faults import translated
from pondkeeper.engine.fusing import RowInsert, insert_rows

SCHEMA: Final = "_pondkeeper"
NAME: Final = "idempotency"
AUTOMATIC: Final = "auto-"  # how the keys begin that our clients make; the time comes next, so that they sort by age
_COLUMNS: Final = "(key, digest, rows_changed, committed_at)"
_SHAPE: Final = (
    "(key VARCHAR PRIMARY KEY, digest VARCHAR NOT NULL, rows_changed VARCHAR NOT NULL, committed_at TIMESTAMP NOT NULL)"
)
_FUSED_AT_LEAST: Final = 4


@dataclass(frozen=True)
class Record:
    """What is remembered of a committed write."""

    key: str
    digest: str
    rows_changed: list[int]


class Outcomes:
    """The tables of outcomes of one open database, through a cursor on which no transaction is open."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._tables: list[int] = []
        self._newest_before = ""

    def must_look_up(self, keys: Sequence[str]) -> bool:
        """Whether one of the keys may be in a table whose primary key does not see the next record.

        An automatic key that sorts behind all in the tables before is surely in none of them.
        """
        if not self._tables:
            return True
        return len(self._tables) > 1 and not all(key.startswith(AUTOMATIC) and key > self._newest_before for key in keys)

    def known(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records of those of the keys that were used. Makes the first table where there is none."""
        with translated():
            if not self._tables:
                self._open()
            try:
                found = self._look_up(keys)
            except duckdb.CatalogException:  # somebody has dropped them
                self._open()
                found = self._look_up(keys)
        return {key: Record(key, digest, msgspec.json.decode(rows, type=list[int])) for key, digest, rows in found}

    def remember(self, cursor: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> None:
        """Write the records in the transaction that is open on `cursor`."""
        now = _now().isoformat()
        rows = [[each.key, each.digest, msgspec.json.encode(each.rows_changed).decode(), now] for each in records]
        row = RowInsert(f"INSERT INTO {_table(self._tables[-1])} {_COLUMNS}", (0, 1, 2, 3))
        with translated():
            if len(rows) >= _FUSED_AT_LEAST:
                insert_rows(cursor, row, rows, ("varchar",) * 4)
                return
            for values in rows:
                cursor.execute(f"{row.head} VALUES (?, ?, ?, ?)", values)

    def forget(self, keep_s: float) -> bool:
        """Drop tables whose records are all older than `keep_s`, and begin the next when it is time; whether there was need."""
        oldest = _now() - timedelta(seconds=keep_s)
        with translated():
            try:
                is_time = self._is_to_be_followed(oldest)
                if is_time:
                    self._make(self._tables[-1] + 1)
                dropped = [self._drop_if_older(number, oldest) for number in self._tables[:-1]]
            except duckdb.CatalogException:  # somebody has dropped them, with all they held
                is_time, dropped = True, []
            if is_time or any(dropped):
                self._open()
        return is_time or any(dropped)

    def _open(self) -> None:
        """Find the tables, and make the first."""
        self._tables = self._numbers()
        if not self._tables:
            self._make(0)
        before = [f"SELECT max(key) AS k FROM {_table(number)} WHERE key >= ? AND key < ?" for number in self._tables[:-1]]
        bounds = [AUTOMATIC, AUTOMATIC[:-1] + chr(ord(AUTOMATIC[-1]) + 1)] * len(before)
        self._newest_before = (self._value(f"SELECT max(k) FROM ({' UNION ALL '.join(before)})", bounds) if before else None) or ""

    def _numbers(self) -> list[int]:
        names = self._cursor.execute(
            "SELECT table_name FROM system.main.duckdb_tables() WHERE database_name = current_catalog() AND schema_name = ?",
            [SCHEMA],
        ).fetchall()
        parts = [name.removeprefix(NAME).removeprefix("_") for (name,) in names if name.startswith(NAME)]
        return sorted(int(part or 0) for part in parts if part.isdigit() or not part)

    def _make(self, number: int) -> None:
        self._cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        self._cursor.execute(f"CREATE TABLE {_table(number)} {_SHAPE}")
        self._tables.append(number)

    def _look_up(self, keys: Sequence[str]) -> list[tuple[str, str, str]]:
        marks = ", ".join("?" * len(keys))
        parts = [f"SELECT key, digest, rows_changed FROM {_table(number)} WHERE key IN ({marks})" for number in self._tables]
        return self._cursor.execute(" UNION ALL ".join(parts), list(keys) * len(parts)).fetchall()

    def _is_to_be_followed(self, oldest: datetime) -> bool:
        found = self._value(f"SELECT min(committed_at) FROM {_table(self._tables[-1])}")
        return found is not None and found < oldest

    def _drop_if_older(self, number: int, oldest: datetime) -> bool:
        newest = self._value(f"SELECT max(committed_at) FROM {_table(number)}")
        if newest is not None and newest >= oldest:
            return False
        self._cursor.execute(f"DROP TABLE {_table(number)}")
        return True

    def _value(self, sql: str, parameters: Sequence[str] = ()) -> Any:
        """The one value of a query. Trap: a result that is not read to its end keeps a transaction open, and CHECKPOINT waiting."""
        [[value]] = self._cursor.execute(sql, list(parameters)).fetchall()
        return value


def _table(number: int) -> str:
    return f"{SCHEMA}.{NAME}_{number}" if number else f"{SCHEMA}.{NAME}"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)

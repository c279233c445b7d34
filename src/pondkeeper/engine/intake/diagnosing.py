"""What is wrong with the rows of a body, once it is known that something is: each bad row with its place and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb
import msgspec

from pondkeeper.engine.intake.breaking import read_broken
from pondkeeper.engine.intake.matching import Cell, Match, cells
from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.sources.rows import PLACE, BadRow, Source
from pondkeeper.errors import BodyTooLarge, RowsInvalid
from pondkeeper.files.durable import PRIVATE_FILE
from pondkeeper.files.room import insist_on_room

MOST_SHOWN: Final = 10
_SHOWN_CHARS: Final = 200
_FETCH_ROWS: Final = 2048
_BROKEN: Final = "__pondkeeper_broken"


class Diagnosis:
    """Looks for every bad row. With a path for rejects they go there; without, the refusal names the first of them.

    `broken`: files that say which rows break constraints of the table; they are bad too.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        source: Source,
        found: Match,
        rejects: str | None,
        limit_bytes: int,
        broken: Sequence[str] = (),
    ) -> None:
        self._cursor = cursor
        self._source = source
        self._match = found
        self._path = Path(rejects) if rejects else None
        self._limit_bytes = limit_bytes
        self._has_broken = bool(broken)
        if broken:
            cursor.register(_BROKEN, read_broken(broken))
        self._count = 0
        self._first: list[BadRow] = []
        self._file: BinaryIO | None = None

    def run(self) -> int:
        """How many rows are bad."""
        if self._path is not None:
            self._path.touch(PRIVATE_FILE)
            self._file = self._path.open("wb")
        try:
            self._look()
        finally:
            if self._file is not None:
                self._file.close()
        return self._count

    def good(self, read: list[Cell]) -> str:
        """SQL: whether all values of a row can be read."""
        conditions = [f"NOT ({bad})" for bad in self._bads(read)]
        if self._has_broken:
            conditions.append(f'{PLACE} NOT IN (SELECT place FROM temp.main."{_BROKEN}")')
        return " AND ".join(conditions)

    def _look(self) -> None:
        names = [column.name for column in self._match.columns]
        attempt = Pass(self._cursor, self._source.read(names, self._note))
        with attempt as view:
            read = cells(self._source, self._match.columns, view.types)
            bads = self._bads(read)
            shown = ", ".join(cell.shown for cell in read)
            query = self._query(view.name, bads, shown)
            with attempt.faults():
                found = attempt.execute(query)
                while rows := found.fetchmany(_FETCH_ROWS):
                    for place, bad, values, reasons, culprits in rows:
                        self._note(self._bad_row(place, bad, values, list(zip(reasons or (), culprits or (), strict=True))))

    def _query(self, view: str, bads: list[str], shown: str) -> str:
        """Bad rows: place, which columns are bad, all values as text, and what the writer has found of them."""
        is_bad = " OR ".join(bads)
        if not self._has_broken:
            return f"SELECT {PLACE}, [{', '.join(bads)}], [{shown}], NULL, NULL FROM {view} WHERE {is_bad}"
        told = f'(SELECT place, list(reason) AS reasons, list(culprit) AS culprits FROM temp.main."{_BROKEN}" GROUP BY place)'
        rows = f"(SELECT {PLACE}, [{', '.join(bads)}] AS bads, [{shown}] AS shown, {is_bad} AS is_bad FROM {view})"
        return (
            f"SELECT {PLACE}, bads, shown, reasons, culprits FROM {rows} LEFT JOIN {told} ON place = {PLACE}"
            f" WHERE is_bad OR reasons IS NOT NULL ORDER BY {PLACE}"
        )

    def _bads(self, read: list[Cell]) -> list[str]:
        found = []
        for column, cell in zip(self._match.columns, read, strict=True):
            unreadable = f"({cell.given}) AND TRY({cell.value}) IS NULL"
            found.append(f"({unreadable})" if column.target.is_nullable else f"(NOT ({cell.given}) OR TRY({cell.value}) IS NULL)")
        return found

    def _bad_row(
        self, place: int, bad: Sequence[bool], values: Sequence[str | None], broken: Sequence[tuple[str, str | None]]
    ) -> BadRow:
        faults: list[dict[str, Any]] = []
        for column, is_bad, value in zip(self._match.columns, bad, values, strict=True):
            if is_bad:
                reason = self._reason(value, column.kind.name)
                shown = None if value is None else value[:_SHOWN_CHARS]
                faults.append({"column": column.target.name, "reason": reason, "value": shown})
        record = {column.name: self._shown(value) for column, value in zip(self._match.columns, values, strict=True)}
        by_target = {column.target.name: value for column, value in zip(self._match.columns, values, strict=True)}
        for reason, culprit in broken:
            value = by_target.get(culprit) if culprit is not None else None
            faults.append({"column": culprit, "reason": reason, "value": None if value is None else value[:_SHOWN_CHARS]})
        return BadRow(place, faults, record)

    def _reason(self, value: str | None, kind: str) -> str:
        if value is None:
            return "NULL, which the column must not be"
        shown = value[:_SHOWN_CHARS]
        return f"{shown if self._source.form == 'json' else repr(shown)} is no {kind[:_SHOWN_CHARS]}"

    def _shown(self, value: str | None) -> Any:
        return msgspec.Raw(value.encode()) if value is not None and self._source.form == "json" else value

    def _note(self, bad: BadRow) -> None:
        self._count += 1
        if self._file is not None:
            entry = {self._source.word: bad.place, "faults": bad.faults, "record": bad.record}
            self._file.write(msgspec.json.encode(entry) + b"\n")
            if self._count % _FETCH_ROWS == 0:
                self._check_room()
            return
        self._first.append(bad)
        if len(self._first) > 100 * MOST_SHOWN:
            self._first = self._earliest()

    def _check_room(self) -> None:
        assert self._file is not None
        assert self._path is not None
        if self._file.tell() > self._limit_bytes:
            raise BodyTooLarge("The bad rows alone take more than may be staged.", max_bytes=self._limit_bytes)
        insist_on_room(self._path)

    def _earliest(self) -> list[BadRow]:
        return sorted(self._first, key=lambda bad: bad.place)[:MOST_SHOWN]

    def refusal(self) -> RowsInvalid:
        """What is said of them when none may be bad."""
        word = self._source.word
        first = self._earliest()
        rows = [{word: bad.place, **fault} for bad in first for fault in bad.faults][:MOST_SHOWN]
        named = "; ".join(f"{word} {row[word]}{_in_column(row)}: {row['reason']}" for row in rows[:3])
        what = "1 row is bad" if self._count == 1 else f"{self._count:,} rows are bad"
        return RowsInvalid(f"{what}, and nothing was taken: {named}.", count=self._count, rows=rows)


def _in_column(row: dict[str, Any]) -> str:
    return f", column {row['column']!r}" if row["column"] is not None else ""

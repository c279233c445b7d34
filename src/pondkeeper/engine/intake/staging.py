"""Staging: a body becomes rows that certainly fit the table, before anybody needs the table's file.

A strict pass reads every value and stops at the first that cannot be read; only then a second one looks for all of them.
A body of Arrow or Parquet that fits is verified and left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from pondkeeper.engine.faults import translate
from pondkeeper.engine.intake.diagnosing import Diagnosis
from pondkeeper.engine.intake.matching import Cell, Chosen, Match, Wish, cells, check_seen, match
from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.sources.columnar import ColumnarSource
from pondkeeper.engine.intake.sources.delimited import CsvSource
from pondkeeper.engine.intake.sources.ndjson import JsonSource
from pondkeeper.engine.intake.sources.rows import ANY_COUNT, PLACE, Source
from pondkeeper.engine.intake.values import failing, when
from pondkeeper.engine.intake.writing import write_stream
from pondkeeper.engine.render.arrow import convert
from pondkeeper.errors import BodyInvalid, ColumnsDiffer, InvalidRequest, SqlInvalid, StatementFailed

STAGED_NAME: Final = "staged.arrow"


@dataclass(frozen=True)
class Job:
    """One body to be staged into `folder`; `rejects` is where bad rows go, None when there must be none.

    `broken`: what the writer has found of rows that can be read, and break constraints of the table (`breaking.py`).
    """

    path: str
    format: str
    delimiter: str
    has_header: bool
    wish: Wish
    folder: str
    rejects: str | None
    limit_bytes: int
    threads: int = 1
    broken: tuple[str, ...] = ()
    max_rows: int = ANY_COUNT


@dataclass(frozen=True)
class Staged:
    """What the writer is to load: a file whose columns go, in order, into `columns` of the table."""

    path: str
    format: str
    columns: tuple[tuple[str, str], ...]
    new: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]
    rows: int
    rejected: int = 0
    is_as_it_came: bool = False


def stage(cursor: duckdb.DuckDBPyConnection, job: Job) -> Staged:
    """Read the whole body. Raises BodyInvalid, RowsInvalid, ColumnsDiffer, TableNotFound and their like."""
    source = source_of(job)
    found = match(cursor, source, job.wish)
    if isinstance(source, ColumnarSource) and not job.broken:
        staged = _as_it_came(cursor, source, job, found)
        if staged is not None:
            return staged
    return _Stager(cursor, source, job, found).staged()


def source_of(job: Job) -> Source:
    """The body as its format reads it."""
    path = Path(job.path)
    if job.format in ("arrow", "parquet"):
        return ColumnarSource(path, job.format, max_rows=job.max_rows)
    if job.format == "csv":
        return CsvSource(path, delimiter=job.delimiter, has_header=job.has_header)
    if job.format in ("json", "ndjson"):
        return JsonSource(path, lines=job.format == "ndjson")
    raise InvalidRequest(f"There is no format {job.format!r}.")


# A body that fits


def _as_it_came(cursor: duckdb.DuckDBPyConnection, source: ColumnarSource, job: Job, found: Match) -> Staged | None:
    """Look at every value; None when the body cannot be loaded as it is."""
    names = [column.name for column in found.columns]
    if not names:
        raise BodyInvalid("The body has no columns.")
    attempt = Pass(cursor, source.columns(names))
    with attempt as view:
        read = cells(source, found.columns, view.types)
        changed = [cell.value for column, cell in zip(found.columns, read, strict=True) if cell.value != column.reference]
        if changed:
            counts = ", ".join(f"count({value})" for value in changed)
            try:
                attempt.execute(f"SELECT count(*), {counts} FROM {view.name}").fetchall()
            except _BAD_VALUES as error:
                _raise_if_grave(error)
                return None
    if not changed:
        source.verify(names, job.threads)
    if any(source.nulls[column.name] for column in found.columns if not column.target.is_nullable):
        return None
    if found.keys and _has_twins(cursor, source, found, read):
        return None
    return Staged(
        job.path,
        job.format,
        tuple((column.name, column.target.name) for column in found.columns),
        tuple((column.name, column.type) for column in found.new),
        found.keys,
        source.rows,
        is_as_it_came=True,
    )


def _has_twins(cursor: duckdb.DuckDBPyConnection, source: ColumnarSource, found: Match, read: list[Cell]) -> bool:
    """Whether two rows have the same key, of which only the last may count."""
    keys = [(column, cell) for column, cell in zip(found.columns, read, strict=True) if column.target.name in found.keys]
    attempt = Pass(cursor, source.columns([column.name for column, _ in keys]))
    with attempt as view:
        values = ", ".join(cell.value for _, cell in keys)
        query = f"SELECT 1 FROM {view.name} GROUP BY {values} HAVING count(*) > 1 LIMIT 1"
        return bool(attempt.execute(query).fetchall())


# A body that is written anew


class _Stager:
    """Writes the rows that are to be loaded into one Arrow stream."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, source: Source, job: Job, found: Match) -> None:
        self._cursor = cursor
        self._source = source
        self._job = job
        self._match = found
        self._names = [column.name for column in found.columns]
        self._is_bad = False
        self._good: Any = None
        self._output = Path(job.folder) / STAGED_NAME

    def staged(self) -> Staged:
        """The rows, all of them or (with rejects) those that are good."""
        fault: Exception | None = None
        rows, self._is_bad = 0, bool(self._job.broken)
        try:
            if not self._is_bad:
                rows = self._written(lambda bad: self._note_bad())
        except _BAD_VALUES as error:
            _raise_if_grave(error)
            self._is_bad, fault = True, error
        rejected = 0
        if self._is_bad:
            rejected = self._diagnosed(fault)
            rows = self._written(lambda bad: None, only=self._good)
        self._check_columns(rows)
        return self._described(rows, rejected)

    def _diagnosed(self, fault: Exception | None) -> int:
        """How many rows are bad, which lie in the reject file. Raises RowsInvalid where none may be."""
        diagnosis = Diagnosis(self._cursor, self._source, self._match, self._job.rejects, self._job.limit_bytes, self._job.broken)
        rejected = diagnosis.run()
        if self._present():  # Why: rows none of which could be cut into columns say nothing of the columns.
            self._check_columns(rejected)
        if not rejected and fault is not None:  # no value was at fault, but what was to become of one
            raise translate(fault) from fault
        if not self._job.rejects:
            raise diagnosis.refusal()
        self._good = diagnosis.good
        return rejected

    def _present(self) -> list[Chosen]:
        """The columns that any row had, once a pass has seen them all."""
        present, _ = self._source.seen()
        return [column for column in self._match.columns if column.name in present]

    def _check_columns(self, rows: int) -> None:
        _, others = self._source.seen()
        check_seen(self._job.wish, rows, {column.target.name for column in self._present()}, others)

    def _note_bad(self) -> None:
        self._is_bad = True

    def _written(self, on_bad: Any, only: Any = None) -> int:
        attempt = Pass(self._cursor, self._source.read(self._names, on_bad))
        with attempt as view:
            read = cells(self._source, self._match.columns, view.types)
            query = self._query(view.name, read, only(read) if only else None)
            return write_stream(attempt, query, self._output, self._job.limit_bytes, self._job.max_rows)

    def _query(self, view: str, read: list[Cell], only: str | None) -> str:
        """The values in the form in which our Arrow answers have them; of equal keys the last row."""
        inner = [f"{self._strict(place, cell, checked=only is None)} AS c{place}" for place, cell in enumerate(read)]
        rows = f"SELECT {PLACE}, {', '.join(inner)} FROM {view}" + (f" WHERE {only}" if only else "")
        if self._match.keys:
            keys = [f"c{place}" for place, column in enumerate(self._match.columns) if column.target.name in self._match.keys]
            rows += f" QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {PLACE} DESC) = 1"
        outer = [
            f"{convert(column.kind, f'c{place}') or f'c{place}'} AS {column.reference}"
            for place, column in enumerate(self._match.columns)
        ]
        if self._job.rejects:  # Why: the writer names those that break constraints by their places.
            outer.append(PLACE)
        return f"SELECT {', '.join(outer)} FROM ({rows})"

    def _strict(self, place: int, cell: Cell, *, checked: bool) -> str:
        if self._match.columns[place].target.is_nullable or not checked:
            return cell.strict
        is_given = f"CASE WHEN {cell.given} THEN true ELSE {failing('NULL', PLACE)} END"
        return when(cell.kind, is_given, cell.value)

    def _described(self, rows: int, rejected: int) -> Staged:
        columns = self._present()
        if rows and not columns:
            raise ColumnsDiffer("The rows of the body have no values.")
        return Staged(
            str(self._output),
            "arrow",
            tuple((column.name, column.target.name) for column in columns),
            tuple((column.name, column.type) for column in self._match.new),
            self._match.keys,
            rows,
            rejected,
        )


# Why OSError: as such a fault of the running query comes out of an Arrow stream of 2.0.
_BAD_VALUES: Final = (duckdb.Error, pa.ArrowException, OSError)


def _raise_if_grave(error: Exception) -> None:
    """A value that cannot be read is looked for; everything else is said at once."""
    told = translate(error)
    if told.fatal or not isinstance(told, (StatementFailed, SqlInvalid)):
        raise told from error


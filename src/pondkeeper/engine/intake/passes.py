"""One pass of the engine over rows that Python cuts: what goes wrong in Python comes out as it went in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import duckdb
import pyarrow as pa

from pondkeeper.engine.intake.shape import columns_of
from pondkeeper.engine.render.types import Type

_VIEW: Final = "__pondkeeper_rows"


@dataclass(frozen=True)
class View:
    """The rows as SQL finds them: the name of the view, and what its columns are."""

    name: str
    types: dict[str, Type]


class Pass:
    """The rows of a reader, once, as a view of this cursor. Only one at a time."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader) -> None:
        self._cursor = cursor
        self._failure: Exception | None = None
        self._reader = pa.RecordBatchReader.from_batches(reader.schema, self._guarded(reader))

    def __enter__(self) -> View:
        self._cursor.register(_VIEW, self._reader)
        try:
            return View(f'temp.main."{_VIEW}"', {column.name: column.type for column in columns_of(self._cursor, _VIEW)})
        except BaseException:  # Why: whatever ended it, the next pass needs the name.
            self._cursor.unregister(_VIEW)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._cursor.unregister(_VIEW)
        except duckdb.Error:  # Why: in a transaction that has failed the view goes with the rollback.
            return

    def execute(self, query: str) -> Any:
        """Run a query over the view; a fault of the rows themselves is raised as what it is."""
        with self.faults():
            return self._cursor.execute(query)

    def stream(self, query: str, batch_rows: int) -> pa.RecordBatchReader:
        """The answer of a query over the view, as it is made; whoever reads it does so inside `faults()`."""
        # Why so: see engine/render/arrow.py; this is the way that keeps no result on either line.
        return self._cursor.sql(query).to_arrow_reader(batch_rows)

    def faults(self) -> _Faults:
        return _Faults(self)

    def _guarded(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except Exception as error:
            self._failure = error
            raise

    @property
    def failure(self) -> Exception | None:
        """What went wrong in Python while the engine asked for rows."""
        return self._failure


class _Faults:
    """Raises what went wrong in Python, instead of what the engine makes of it."""

    def __init__(self, of: Pass) -> None:
        self._of = of

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = self._of.failure
        if error is not None and failure is not None and error is not failure:
            raise failure from None

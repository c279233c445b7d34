"""Rows that come from elsewhere as a stream of Arrow, staged in Arrow's file format: cast by the engine, a batch at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from pondkeeper.engine.bulk import ROW_GROUP_ROWS
from pondkeeper.engine.catalog import literal
from pondkeeper.engine.direct import Column, directly
from pondkeeper.engine.faults import translated
from pondkeeper.engine.rowgroups import in_row_groups
from pondkeeper.errors import PondkeeperError, QueryCancelled

_LEAST_ROWS: Final = 2_048
_MOST_ROWS: Final = 61_440
_BATCH_BYTES: Final = 32 * 1024 * 1024
_OPTIONS: Final = {False: pa.ipc.IpcWriteOptions(), True: pa.ipc.IpcWriteOptions(compression="lz4")}
_SOURCE: Final = "source"
_JSON: Final = pa.json_(pa.string())


class Stager:
    """A DuckDB in memory that writes files into one folder and can do nothing else outside; safe in threads.

    `stage` raises PondkeeperError for what the engine refuses, and what the stream raises as the engine wraps it.
    """

    def __init__(self, folder: Path, *, memory_limit_bytes: int, threads: int) -> None:
        self._connection = duckdb.connect(":memory:", config={"memory_limit": f"{memory_limit_bytes}B", "threads": threads})
        self._lock = threading.Lock()
        self._busy: set[duckdb.DuckDBPyConnection] = set()
        self._ended = False
        for statement in (
            f"SET temp_directory = {literal(str(folder / 'spill'))}",
            f"SET allowed_directories = [{literal(str(folder) + '/')}]",
            "SET enable_external_access = false",
            "SET enable_progress_bar = false",
            "SET python_enable_replacements = false",
            "SET arrow_lossless_conversion = true",  # Why: a UUID stays one, and JSON
            "SET preserve_insertion_order = false",  # Why: rows of a stream have no order, and to keep one costs a third
            "SET GLOBAL TimeZone = 'UTC'",
            "SET lock_configuration = true",
        ):
            self._connection.execute(statement)

    def stage(
        self, stream: Any, columns: Sequence[Column], file: Path, rest: Path, row_bytes: int, *, is_large: bool = False
    ) -> int:
        """Write the rows of an Arrow stream to files, as the columns say; how many there were.

        `file` has batches of whole row groups, `rest` what is left, if anything is: whoever loads the rests of several
        streams behind all else has to join only them. `row_bytes`: about how large a row is, for batches that fit into
        memory. `is_large`: worth being compressed, which halves the files and takes twice as long.
        """
        most_rows = min(max(_BATCH_BYTES // max(row_bytes, 1), _LEAST_ROWS), _MOST_ROWS)
        rest.unlink(missing_ok=True)  # Why: these rows need not leave any.
        count = 0
        with self._cursor() as cursor, ExitStack() as writers:
            reader = _with_json(pa.RecordBatchReader.from_stream(stream), {each.source for each in columns if each.is_json})
            staged = _Staged(cursor, columns, most_rows)
            schema = staged.schema(reader.schema)
            whole = writers.enter_context(_writer(file, schema, is_large))
            left = None
            for batch in in_row_groups(staged.batches(reader, schema)):
                if batch.num_rows < ROW_GROUP_ROWS and left is None:
                    left = writers.enter_context(_writer(rest, schema, is_large))
                (whole if batch.num_rows == ROW_GROUP_ROWS or left is None else left).write_batch(batch)
                count += batch.num_rows
                if self._ended:
                    raise QueryCancelled
        return count

    def end(self) -> None:
        """Interrupt whatever is being staged, and let nothing begin any more."""
        with self._lock:
            self._ended = True
            for cursor in self._busy:
                cursor.interrupt()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._connection.cursor()
        with self._lock:
            if self._ended:
                cursor.interrupt()
            self._busy.add(cursor)
        try:
            yield cursor
        finally:
            with self._lock:
                self._busy.discard(cursor)
            cursor.close()


@contextmanager
def _writer(file: Path, schema: pa.Schema, is_large: bool) -> Iterator[pa.RecordBatchFileWriter]:
    with pa.OSFile(str(file), "wb") as target, pa.ipc.new_file(target, schema, options=_OPTIONS[is_large]) as writer:
        yield writer


def _with_json(reader: pa.RecordBatchReader, sources: set[str]) -> pa.RecordBatchReader:
    """The same stream, with these of its columns named JSON where they are text."""
    is_text = [field.name in sources and field.type == pa.string() for field in reader.schema]
    if not any(is_text):
        return reader
    fields = [field.with_type(_JSON) if text else field for field, text in zip(reader.schema, is_text, strict=True)]
    schema = pa.schema(fields)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            arrays = [pa.ExtensionArray.from_storage(_JSON, each) if text else each for each, text in zip(batch, is_text, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def value_of(stream: Any) -> Any:
    """The only value of an Arrow stream."""
    return pa.RecordBatchReader.from_stream(stream).read_all().column(0)[0].as_py()


class _Staged:
    """What is staged of one stream: all of it through the engine, or what needs it, batch by batch."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, columns: Sequence[Column], most_rows: int) -> None:
        self._cursor = cursor
        self._columns = columns
        self._most_rows = most_rows
        self._sql = f"SELECT {', '.join(f'{each.sql} AS {_quoted(each.name)}' for each in columns)} FROM {_SOURCE}"

    def schema(self, source: pa.Schema) -> pa.Schema:
        """The columns of the staged file."""
        with self._made(pa.table([pa.array([], field.type) for field in source], schema=source)) as made:
            return made.schema

    def batches(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows as they are staged. Raises PondkeeperError for what the stream and the engine raise."""
        if any(column.direct is None for column in self._columns):
            with self._made(reader) as made:
                yield from made
            return
        for batch in _told(reader):
            direct = directly(batch, self._columns, schema)
            if direct is not None:
                yield direct
                continue
            with self._made(pa.table(batch)) as made:
                yield from made

    @contextmanager
    def _made(self, rows: Any) -> Iterator[pa.RecordBatchReader]:
        with translated():
            self._cursor.register(_SOURCE, rows)
            try:
                # Trap: on 2.0 `execute(…).to_arrow_reader()` keeps the whole result in memory first.
                yield self._cursor.sql(self._sql).to_arrow_reader(self._most_rows)
            finally:
                self._cursor.unregister(_SOURCE)


def _told(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches of a stream; what ends it is raised as the engine would, with the words of the stream."""
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise PondkeeperError("The stream of rows broke off.", private=str(error)) from error
        yield batch


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

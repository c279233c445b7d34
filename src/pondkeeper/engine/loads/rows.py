"""The staged Parquet files of a step: their columns, and passes over their rows in order."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pondkeeper.engine.intake.inferring import value_types
from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.sources.rows import PLACE, check_names
from pondkeeper.errors import BodyInvalid, InvalidRequest, OutOfMemory

BATCH_ROWS: Final = 122_880  # a row group of DuckDB: measured as the cheapest size to insert
_JOINED_BYTES: Final = 64 * 1024 * 1024


class StagedRows:
    """The rows of Parquet files, one file after the other. All have the same columns, whatever their order.

    Columns whose types differ from file to file get the type that holds all of them.
    """

    def __init__(self, files: Sequence[str]) -> None:
        if not files:
            raise InvalidRequest("A step names no file.", remedy="Stage a file without rows where there are none.")
        self._files = list(files)
        with _faults():
            described = [_described(file) for file in self._files]
        self.count = sum(count for _, count in described)
        self.schema = _joined([schema for schema, _ in described])
        check_names(self.schema.names)

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    def types(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The columns' types as DuckDB spells them."""
        return value_types(cursor, self.schema, self.names)

    def on(self, cursor: duckdb.DuckDBPyConnection, names: Sequence[str], *, with_place: bool = False) -> Pass:
        """A pass over these columns as a view of the cursor; with the column `PLACE`, which counts the rows."""
        wanted = [self.schema.field(name) for name in names]
        # Trap: DuckDB takes a view without columns for a mistake.
        fields = [pa.field(PLACE, pa.int64()), *wanted] if with_place or not wanted else wanted
        schema = pa.schema(fields)
        return Pass(cursor, pa.RecordBatchReader.from_batches(schema, _filled(self._batches(schema))))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        place = 0
        with _faults():
            for file in self._files:
                for batch in _read(file, [name for name in schema.names if name != PLACE]):
                    columns = [
                        pa.array(range(place, place + batch.num_rows), pa.int64())
                        if field.name == PLACE
                        else _cast(batch.column(field.name), field.type)
                        for field in schema
                    ]
                    place += batch.num_rows
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _filled(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of a row group each, whatever the files' ends; those of very wide rows as they are.

    Why: of smaller ones among them DuckDB makes row groups that are not full, and the next CHECKPOINT packs all that follow
    anew: 1 M rows × 20 columns from eight files of 127,000 cost 1.5 s of processor time there, and nothing this way.
    """
    waiting: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        rest = batch
        while rest.num_rows:
            part = rest.slice(0, BATCH_ROWS - rows)
            rest = rest.slice(part.num_rows)
            waiting.append(part)
            rows += part.num_rows
            size_bytes += part.nbytes
            if rows == BATCH_ROWS or size_bytes > _JOINED_BYTES:
                yield from _together(waiting, size_bytes)
                waiting, rows, size_bytes = [], 0, 0
    yield from _together(waiting, size_bytes)


def _together(batches: list[pa.RecordBatch], size_bytes: int) -> list[pa.RecordBatch]:
    """As one batch, where that is worth its copy and Arrow can do it."""
    if len(batches) < 2 or size_bytes > _JOINED_BYTES:
        return batches
    try:
        return [pa.concat_batches(batches)]
    except pa.ArrowNotImplementedError:  # Why: it joins no dictionaries within lists, for one.
        return batches


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    # Why not always: Arrow casts no list of UUIDs or JSON, not even to itself.
    return column if column.type == kind else column.cast(kind)


def _read(file: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file, memory_map=False) as parquet:
        given = {name.lower(): name for name in parquet.schema_arrow.names}
        columns = [given[name.lower()] for name in names]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=columns or None):
            yield batch.select(columns).rename_columns(names) if names else batch


def _described(file: str) -> tuple[pa.Schema, int]:
    # Trap: a link could lead to the database itself, and whoever closes that drops DuckDB's lock on it.
    if not stat.S_ISREG(Path(file).lstat().st_mode):
        raise BodyInvalid("A staged file is no plain file.", private=file)
    with pq.ParquetFile(file, memory_map=False) as parquet:
        _insist_on_values(parquet.metadata.schema)
        return parquet.schema_arrow, parquet.metadata.num_rows


def _insist_on_values(columns: pq.ParquetSchema) -> None:
    """Trap: Parquet's INTERVAL has milliseconds where DuckDB's has microseconds, and Arrow reads it as twelve bytes."""
    for place in range(len(columns)):
        column = columns.column(place)
        if column.converted_type == "INTERVAL":
            raise BodyInvalid(
                f"The staged column {column.path!r} is an INTERVAL of Parquet, which cannot hold all of DuckDB's.",
                remedy='Stage it as text, and name its type in the step: types={"…": "INTERVAL"}.',
            )


def _joined(schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for all: the names of the first, each with a type that holds the values of all."""
    first = schemas[0]
    wanted = {name.lower() for name in first.names}
    for schema in schemas[1:]:
        if {name.lower() for name in schema.names} != wanted:
            differing = sorted(wanted ^ {name.lower() for name in schema.names})
            raise BodyInvalid(f"The staged files of one step differ in their columns: {', '.join(differing[:20])}.")
    spelled = [pa.schema([_spelled(field, first) for field in schema]) for schema in schemas]
    try:
        return pa.unify_schemas(spelled, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise BodyInvalid("The staged files of one step differ in the types of a column.", private=str(error)) from error


def _spelled(field: pa.Field, first: pa.Schema) -> pa.Field:
    [name] = [name for name in first.names if name.lower() == field.name.lower()]
    return field.with_name(name).with_nullable(True)


@contextmanager
def _faults() -> Iterator[None]:
    """Whatever Arrow says of a file that it cannot read is said of the staged file."""
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise OutOfMemory("A staged file needs more memory than the writer may have.", private=str(error)) from error
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise BodyInvalid("A staged file is no Parquet file, or breaks off.", private=str(error)) from error

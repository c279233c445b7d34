"""Arrow streams and files, and Parquet files: columns with types of their own, which often fit a table as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pondkeeper.engine.intake.sources.rows import ANY_COUNT, PLACE, OnBad, check_names, insist_on_few
from pondkeeper.errors import BodyInvalid, OutOfMemory

BATCH_ROWS: Final = 122_880  # a row group of DuckDB: measured as the cheapest size to insert
_NARROW_BYTES: Final = 4
_ARROW_FILE: Final = b"ARROW1"
_NAMED: Final = {"arrow": "Arrow stream", "parquet": "Parquet file"}


class ColumnarSource:
    """Rows of typed columns. `verify`: look at every byte of what is read, so that nobody after us meets a surprise."""

    word: Final = "row"
    form: Final = "value"
    deep: Final = frozenset[str]()

    def __init__(self, path: Path, format_: str, *, verify: bool = True, max_rows: int = ANY_COUNT) -> None:
        self._path = path
        self._format = format_
        self._verify = verify
        self._max_rows = max_rows
        self._schema: pa.Schema | None = None
        self.rows = 0
        self.nulls: dict[str, int] = {}

    @property
    def schema(self) -> pa.Schema:
        """The schema of the body."""
        if self._schema is None:
            with self._faults():
                self._schema = self._read_schema()
                if self._verify:
                    check_names(self._schema.names)
        return self._schema

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    def survey(self) -> list[str]:
        return self.names

    def seen(self) -> tuple[list[str], dict[str, int]]:
        return self.names, {}

    def read(self, names: Sequence[str], on_bad: OnBad) -> pa.RecordBatchReader:  # noqa: ARG002  Why: a column has no bad rows
        schema = pa.schema([pa.field(PLACE, pa.int64()), *self._fields(names)])
        return pa.RecordBatchReader.from_batches(schema, self._placed(schema, names))

    def verify(self, names: Sequence[str], threads: int) -> None:
        """Look at every byte of these columns and count rows and NULLs, on so many threads. Raises BodyInvalid."""
        with self._faults():
            metadata = pq.read_metadata(self._path) if self._format == "parquet" else None
            if metadata is not None:
                insist_on_few(metadata.num_rows, self._max_rows)  # Why: what a few bytes say of a billion rows is read nowhere.
            if metadata is None or metadata.num_row_groups < 2:
                for _ in self.columns(names):
                    continue
                return
            verified = _Verified(self._path, metadata, list(names))
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(verified.group, range(metadata.num_row_groups)))
        self.rows = sum(rows for rows, _ in found)
        self.nulls = {name: sum(nulls[name] for _, nulls in found) for name in names}

    def columns(self, names: Sequence[str]) -> pa.RecordBatchReader:
        """A pass over these columns alone, without places."""
        schema = pa.schema(self._fields(names))
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema, list(names)))

    def _fields(self, names: Sequence[str]) -> list[pa.Field]:
        return [self.schema.field(name) for name in names]

    def _placed(self, schema: pa.Schema, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        place = 1
        for batch in self._batches(pa.schema(list(schema)[1:]), list(names)):
            places = pa.array(range(place, place + batch.num_rows), pa.int64())
            place += batch.num_rows
            yield pa.RecordBatch.from_arrays([places, *batch.columns], schema=schema)

    def _batches(self, schema: pa.Schema, names: list[str]) -> Iterator[pa.RecordBatch]:
        self.rows, self.nulls = 0, dict.fromkeys(names, 0)
        with self._faults():
            for batch in self._raw(names):
                chosen = batch.select(names) if batch.schema.names != names else batch
                if self._verify:
                    check(chosen)
                self.rows += chosen.num_rows
                insist_on_few(self.rows, self._max_rows)
                for name in names:
                    self.nulls[name] += chosen.column(name).null_count
                yield pa.RecordBatch.from_arrays(chosen.columns, schema=schema)

    def _raw(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        if self._format == "parquet":
            with pq.ParquetFile(self._path, memory_map=False) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=names or None)
            return
        with self._opened() as reader:
            yield from reader

    def _read_schema(self) -> pa.Schema:
        if self._format == "parquet":
            with pq.ParquetFile(self._path) as file:
                return file.schema_arrow
        with self._opened() as reader:
            return reader.schema

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The batches of an Arrow stream, or of an Arrow file: those tell themselves apart by their first bytes."""
        with pa.memory_map(str(self._path)) as mapped:
            is_file = mapped.read(len(_ARROW_FILE)) == _ARROW_FILE
            mapped.seek(0)
            if is_file:
                file = pa.ipc.open_file(mapped)
                yield pa.RecordBatchReader.from_batches(
                    file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
                )
            else:
                with pa.ipc.open_stream(mapped) as stream:
                    yield stream

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever Arrow says of bytes that it cannot read is said of the body."""
        try:
            yield
        except pa.ArrowMemoryError as error:
            raise OutOfMemory("The body needs more memory than a stager may have.", private=str(error)) from error
        except (pa.ArrowException, OSError, EOFError, ValueError) as error:
            what = _NAMED[self._format]
            raise BodyInvalid(f"The body is no {what}, or breaks off: {_first_line(error)}", private=str(error)) from error


class _Verified:
    """The row groups of a Parquet file, looked at one by one. Its description is read once: it grows with them."""

    def __init__(self, path: Path, metadata: Any, names: list[str]) -> None:
        self._path = path
        self._metadata = metadata
        self._names = names
        # Why: left as numbers of a few different texts, they are looked at in half of the time.
        self._narrow = [metadata.schema.column(place).path for place in range(metadata.num_columns) if self._is_narrow(place)]

    def _is_narrow(self, place: int) -> bool:
        """Whether this column has few different texts in the first of the groups."""
        chunk = self._metadata.row_group(0).column(place)
        is_text = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
        return bool(is_text and chunk.total_uncompressed_size < _NARROW_BYTES * chunk.num_values)

    def group(self, number: int) -> tuple[int, dict[str, int]]:
        """The rows of a row group, and the NULLs of its columns."""
        rows, nulls = 0, dict.fromkeys(self._names, 0)
        with pq.ParquetFile(self._path, metadata=self._metadata, read_dictionary=self._narrow) as file:
            for batch in file.iter_batches(BATCH_ROWS, [number], columns=self._names, use_threads=False):
                check(batch)
                rows += batch.num_rows
                for name in self._names:
                    nulls[name] += batch.column(name).null_count
        return rows, nulls


def check(batch: pa.RecordBatch) -> None:
    """Look at every byte of a batch: offsets that lead outside, texts that are no UTF-8. Raises ArrowInvalid."""
    for column in batch.columns:
        plain = _without_ranges(column.type)
        (column if plain == column.type else column.view(plain)).validate(full=True)


def _without_ranges(kind: pa.DataType) -> pa.DataType:
    """The type with mere numbers where Arrow knows a range that DuckDB's values leave: HUGEINTs, and 24:00:00."""
    if pa.types.is_decimal128(kind):
        return pa.binary(16)
    if pa.types.is_time(kind):
        return pa.int32() if pa.types.is_time32(kind) else pa.int64()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_ranges(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field.with_type(_without_ranges(kind.key_type)), kind.item_field.with_type(_without_ranges(kind.item_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_without_ranges(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_ranges(kind.value_type)))
    return kind


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

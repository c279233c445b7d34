"""A staged file, opened: Parquet, or Arrow's file format, as its first bytes say.

Parquet is for what is kept for a while and made by anybody; Arrow's file is quicker to write and to read (for 1 M rows × 20
columns 0.1 s of processor time each, Parquet with LZ4 0.4 s each) and two and a half times as large.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pondkeeper.errors import BodyInvalid, OutOfMemory

_ARROW: Final = b"ARROW1"


class StagedFile(Protocol):
    """An open file: its columns, how many rows, and the rows."""

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def count(self) -> int: ...

    def batches(self, columns: Sequence[str], most_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of these columns, in this order; no columns: all of them."""
        ...


@contextmanager
def opened(file: str) -> Iterator[StagedFile]:
    """The file, for as long as the block lasts. Raises BodyInvalid for what is no file of either kind."""
    with faults():
        # Trap: a link could lead to the database itself, and whoever closes that drops DuckDB's lock on it.
        if not stat.S_ISREG(Path(file).lstat().st_mode):
            raise BodyInvalid("A staged file is no plain file.", private=file)
        if _is_arrow(file):
            # Why mapped: to copy 200 MB took a fifth of the time for which a load of 1 M rows had the lease. Whoever cuts the
            # file short meanwhile ends the writer, which nobody can but the owner of both.
            with pa.memory_map(file) as source:
                yield _Arrow(source)
        else:
            with pq.ParquetFile(file, memory_map=False) as parquet:
                yield _Parquet(parquet)


def _is_arrow(file: str) -> bool:
    with open(file, "rb") as source:
        return source.read(len(_ARROW)) == _ARROW


class _Parquet:
    def __init__(self, parquet: pq.ParquetFile) -> None:
        self._parquet = parquet
        _insist_on_values(parquet.metadata.schema)
        self.schema: pa.Schema = parquet.schema_arrow
        self.count: int = parquet.metadata.num_rows

    def batches(self, columns: Sequence[str], most_rows: int) -> Iterator[pa.RecordBatch]:
        for batch in self._parquet.iter_batches(most_rows, columns=list(columns) or None):
            yield batch.select(list(columns)) if columns else batch


class _Arrow:
    def __init__(self, source: pa.MemoryMappedFile) -> None:
        self._source = source
        reader = pa.ipc.open_file(source)
        self.schema: pa.Schema = reader.schema
        self.count: int = reader.count_rows()

    def batches(self, columns: Sequence[str], most_rows: int) -> Iterator[pa.RecordBatch]:
        places = [self.schema.get_field_index(name) for name in columns]
        # Trap: given once each and in the file's order, whatever was asked for.
        reader = pa.ipc.open_file(self._source, options=pa.ipc.IpcReadOptions(included_fields=sorted(set(places))))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate()
            whole = batch.select(list(columns)) if columns else batch
            for begin in range(0, whole.num_rows, most_rows):
                yield whole.slice(begin, most_rows)


def _insist_on_values(columns: pq.ParquetSchema) -> None:
    """Trap: Parquet's INTERVAL has milliseconds where DuckDB's has microseconds, and Arrow reads it as twelve bytes."""
    for place in range(len(columns)):
        column = columns.column(place)
        if column.converted_type == "INTERVAL":
            raise BodyInvalid(
                f"The staged column {column.path!r} is an INTERVAL of Parquet, which cannot hold all of DuckDB's.",
                remedy='Stage it as text, and name its type in the step: types={"…": "INTERVAL"}.',
            )


@contextmanager
def faults() -> Iterator[None]:
    """Whatever Arrow says of a file that it cannot read is said of the staged file."""
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise OutOfMemory("A staged file needs more memory than the writer may have.", private=str(error)) from error
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise BodyInvalid("A staged file is neither Parquet nor an Arrow file, or breaks off.", private=str(error)) from error

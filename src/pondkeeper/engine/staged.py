"""Rows that a process stages as Parquet: written, and read back without a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import duckdb

from pondkeeper.engine.faults import translate, translated
from pondkeeper.errors import InvalidRequest

ROWS_AT_ONCE: Final = 1000
MEMORY: Final = "256MB"


def rows_of_parquet(path: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a file, in their order, a thousand at a time. One thread at a time may ask. Raises PondkeeperError."""
    config: dict[str, str | bool | int | float | list[str]] = {"threads": 1, "memory_limit": MEMORY, "temp_directory": ""}
    with translated(), duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET enable_progress_bar = false")
        found = connection.execute("SELECT * FROM read_parquet(?)", [path])
        while rows := found.fetchmany(ROWS_AT_ONCE):
            yield from rows


def write_parquet(path: str, rows: Any) -> bool:
    """Write rows as a Parquet file: an Arrow table or reader, what speaks Arrow, or dicts. False, and no file, for no dicts.

    Dicts are held in memory, and a column is made of all their keys; what is Arrow is streamed. Raises PondkeeperError.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        reader = _reader(rows)
        if reader is None:
            return False
        with reader, parquet.ParquetWriter(path, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidRequest(f"The rows cannot be staged: {str(error)[:300]}", private=str(error)) from error
    except Exception as error:  # Why: a relation of DuckDB, read here, raises what DuckDB raises
        raise translate(error) from error
    return True


def _reader(rows: Any) -> Any:
    import pyarrow as pa

    if hasattr(rows, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(rows)
    if isinstance(rows, duckdb.DuckDBPyRelation):
        return rows.to_arrow_reader()
    if isinstance(rows, Mapping):
        raise TypeError("a list of dicts was expected, and this is one dict")
    given = list(rows)
    if not all(isinstance(row, Mapping) for row in given):
        raise TypeError("dicts, an Arrow table or reader, or the path of a Parquet file were expected")
    names = dict.fromkeys(name for row in given for name in row)
    if not names:
        return None
    return pa.table({name: pa.array([row.get(name) for row in given]) for name in names}).to_reader()

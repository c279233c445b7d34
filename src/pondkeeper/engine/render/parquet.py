"""Parquet, written while the query runs: a row group is held at a time, never the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pondkeeper.engine.render.arrow import BatchLimits, Sink, cut_metadata

_GROUP_BYTES: Final = 4 * 1024 * 1024
_GROUP_ROWS: Final = 122_880


def stream(
    schema: pa.Schema, source: Iterator[pa.RecordBatch], limits: BatchLimits
) -> Iterator[list[bytes | memoryview]]:
    """The file, in order. The limit of bytes counts the values as Arrow holds them, before encoding and compression."""
    sink = Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="snappy") as writer:
        group: list[pa.RecordBatch] = []
        rows = size_bytes = 0
        for whole in source:
            batch = limits.fitting(whole)
            group.append(batch)
            rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
            if rows >= _GROUP_ROWS or size_bytes >= _GROUP_BYTES or limits.limit:
                _write(writer, schema, group)
                yield sink.taken()
                group, rows, size_bytes = [], 0, 0
            if limits.limit:
                break
        _write(writer, schema, group)
        if limits.limit:
            writer.add_key_value_metadata(cut_metadata(limits.ending))
    yield sink.taken()


def _write(writer: pq.ParquetWriter, schema: pa.Schema, group: list[pa.RecordBatch]) -> None:
    table = pa.Table.from_batches(group, schema)
    if table.num_rows:
        writer.write_table(table, row_group_size=table.num_rows)

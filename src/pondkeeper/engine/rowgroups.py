"""Batches of Arrow as large as DuckDB's row groups.

Why: of smaller ones among them DuckDB makes row groups that are not full, and the next CHECKPOINT packs all that follow
anew: 1 M rows × 20 columns from eight files of 127,000 cost 1.5 s of processor time there, and nothing this way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from pondkeeper.engine.bulk import ROW_GROUP_ROWS

_JOINED_BYTES: Final = 64 * 1024 * 1024


def in_row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of a row group each, and the rest; very wide rows in batches as they come."""
    waiting: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        rest = batch
        while rest.num_rows:
            part = rest.slice(0, ROW_GROUP_ROWS - rows)
            rest = rest.slice(part.num_rows)
            waiting.append(part)
            rows += part.num_rows
            size_bytes += part.nbytes
            if rows == ROW_GROUP_ROWS or size_bytes > _JOINED_BYTES:
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

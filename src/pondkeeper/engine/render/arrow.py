"""Arrow IPC streams. What an Arrow type holds exactly goes as that type, everything else as its canonical text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from pondkeeper.engine.render import json, scalars, sql
from pondkeeper.engine.render.binding import RELATIONS_TAKE_PARAMETERS, Bound
from pondkeeper.engine.render.rows import Ending
from pondkeeper.engine.render.types import FLOATING, WHOLE, Column, Type

# Trap: DuckDB's own export turns UHUGEINT above 2^127 negative, drops the offset of TIMETZ, overflows long INTERVALs
# and gives BIT and BIGNUM as private bytes; sparse unions and VARIANT no reader of Parquet and few of Arrow take.
_AS_TEXT: Final = frozenset({"uhugeint", "bignum", "bit", "time with time zone", "interval", "type"})
_AS_JSON: Final = frozenset({"union", "variant"})
_BATCH_BYTES: Final = 4 * 1024 * 1024
_LEAST_ROWS: Final = 2048
_MOST_ROWS: Final = 131_072
# Why: how wide strings are is known only when they come, and a batch cannot be made smaller then.
_MOST_ROWS_OF_STRINGS: Final = 16_384
_STRING_BYTES: Final = 64
_FIXED: Final = (
    WHOLE
    | FLOATING
    | {"boolean", "hugeint", "decimal", "enum", "uuid", "date", "time", "time_ns", "timestamp", "timestamp_s"}
    | {"timestamp_ms", "timestamp_ns", "timestamp with time zone", "timestamptz_ns", "null"}
)


def convert(kind: Type, reference: str, *, parquet: bool = False, depth: int = 0) -> str | None:
    """SQL for the value as Arrow shall hold it; None where DuckDB's own export is exact."""
    if kind.id in _AS_TEXT:
        return scalars.text(kind, reference)
    if kind.id == "null":
        return f"({reference})::INTEGER"  # Why: as on 1.5; and Parquet has no map whose keys are of no type.
    if kind.id in _AS_JSON or (parquet and kind.id == "struct" and not kind.children):
        return _unless_null(reference, json.exact(kind, reference))
    if parquet and kind.id == "timestamp_s":
        return f"({reference})::TIMESTAMP"  # Trap: Parquet has no seconds; as milliseconds infinity would overflow.
    if kind.id in ("list", "array"):
        return _convert_list(kind, reference, parquet, depth + 1)
    if kind.id in ("struct", "tuple"):
        return _convert_struct(kind, reference, parquet, depth + 1)
    if kind.id == "map":
        return _convert_map(kind, reference, parquet, depth + 1)
    return None


def _unless_null(reference: str, value: str) -> str:
    return f"CASE WHEN {reference} IS NULL THEN NULL ELSE {value} END"


def _convert_list(kind: Type, reference: str, parquet: bool, depth: int) -> str | None:
    variable = f"e{depth}"
    inner = convert(kind.child, variable, parquet=parquet, depth=depth)
    # Trap: Arrow's Parquet writer refuses arrays of fixed size that hold a NULL.
    if inner is None and not (parquet and kind.id == "array"):
        return None
    return sql.transformed(reference, variable, inner or variable)


def _convert_struct(kind: Type, reference: str, parquet: bool, depth: int) -> str | None:
    named = all(name for name, _ in kind.children)
    fields, changed = [], not named and kind.id == "struct"
    for place, (name, child) in enumerate(kind.children):
        value = sql.call("struct_extract", reference, sql.literal(name) if named else str(place + 1))
        inner = convert(child, value, parquet=parquet, depth=depth)
        changed = changed or inner is not None
        fields.append(f"{sql.name(name or f'element{place + 1}')} := {inner or value}")
    return _unless_null(reference, sql.call("struct_pack", *fields)) if changed else None


def _convert_map(kind: Type, reference: str, parquet: bool, depth: int) -> str | None:
    variable = f"e{depth}"
    parts, changed = [], False
    for (_, child), part in zip(kind.children, ("key", "value"), strict=True):
        value = sql.call("struct_extract", variable, sql.literal(part))
        inner = convert(child, value, parquet=parquet, depth=depth)
        changed = changed or inner is not None
        parts.append(f"{part} := {inner or value}")
    if not changed:
        return None
    pairs = sql.transformed(sql.call("map_entries", reference), variable, sql.call("struct_pack", *parts))
    return _unless_null(reference, sql.call("map_from_entries", pairs))


def batches(bound: Bound, *, parquet: bool, version: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The answer's schema and its record batches, streamed."""
    query = bound.selected(lambda column, ref: convert(column.type, ref, parquet=parquet) or ref)
    reader = _reader(bound, query, _batch_rows(bound.columns))
    fields = [
        field.with_name(column.name).with_metadata({**(field.metadata or {}), b"pondkeeper.type": column.type.name})
        for field, column in zip(reader.schema, bound.columns, strict=True)
    ]
    schema = pa.schema(fields, metadata={b"pondkeeper.version": str(version)})
    return schema, (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in reader)


def _reader(bound: Bound, query: str, rows: int) -> pa.RecordBatchReader:
    # Trap: on 2.0 execute(…).to_arrow_reader() keeps the whole result in memory; on 1.5 sql(…, params) does.
    if RELATIONS_TAKE_PARAMETERS:
        reader: Any = bound.cursor.sql(query, params=bound.parameters)
    else:
        reader = bound.cursor.execute(query, bound.parameters)
    found: pa.RecordBatchReader = reader.to_arrow_reader(rows)
    return found


def _batch_rows(columns: tuple[Column, ...]) -> int:
    strings = sum(1 for column in columns if column.type.id not in _FIXED)
    width = strings * _STRING_BYTES + (len(columns) - strings) * 8
    return max(_LEAST_ROWS, min(_MOST_ROWS_OF_STRINGS if strings else _MOST_ROWS, _BATCH_BYTES // width))


class Sink:
    """A file for Arrow's writers that keeps the buffers it is given, until they are taken."""

    closed = False

    def __init__(self) -> None:
        self.size_bytes = 0
        self._parts: list[bytes | memoryview] = []

    def write(self, data: Any) -> int:
        # Why: a memoryview of the buffer keeps it alive and spares the copy.
        part = data if isinstance(data, bytes) else memoryview(data)
        if not len(part):
            return 0
        self._parts.append(part)
        self.size_bytes += len(part)
        return len(part)

    def tell(self) -> int:
        return self.size_bytes

    def taken(self) -> list[bytes | memoryview]:
        parts, self._parts = self._parts, []
        return parts

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class BatchLimits:
    """Counts rows and bytes of record batches, and cuts the batch that passes a limit."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._rows_left = max_rows
        self._bytes_left = max_bytes
        self.row_count = 0
        self.limit: str | None = None

    @property
    def ending(self) -> Ending:
        return Ending(self.row_count, self.limit is not None, self.limit)

    def fitting(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The part of the batch that the limits allow; `limit` is set when that is not all of it."""
        if batch.num_rows > self._rows_left:
            batch, self.limit = _head(batch, self._rows_left), "max_rows"
        if batch.get_total_buffer_size() > self._bytes_left:
            batch = self._by_bytes(batch)
        self.row_count += batch.num_rows
        self._rows_left -= batch.num_rows
        self._bytes_left -= _size(batch)
        return batch

    def _by_bytes(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        low, high = 0, batch.num_rows
        while low < high:
            middle = (low + high + 1) // 2
            if _size(batch.slice(0, middle)) <= self._bytes_left:
                low = middle
            else:
                high = middle - 1
        if low < batch.num_rows:
            self.limit = "max_bytes"
        return _head(batch, low)


def _head(batch: pa.RecordBatch, rows: int) -> pa.RecordBatch:
    # Trap: a slice is written with the whole buffers of its strings; only a copy is as small as it looks.
    return batch if rows >= batch.num_rows else batch.take(pa.array(range(rows), pa.int64()))


def _size(batch: pa.RecordBatch) -> int:
    return int(batch.nbytes)


def stream(
    schema: pa.Schema, source: Iterator[pa.RecordBatch], limits: BatchLimits
) -> Iterator[list[bytes | memoryview]]:
    """The IPC stream. A cut answer ends with an empty batch whose metadata says so."""
    sink = Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in source:
            fitting = limits.fitting(batch)
            writer.write_batch(fitting)
            yield sink.taken()
            if limits.limit:
                writer.write_batch(_head(batch, 0), custom_metadata=cut_metadata(limits.ending))
                break
    yield sink.taken()


def cut_metadata(ending: Ending) -> dict[str, str]:
    """What a cut Arrow or Parquet answer says of itself."""
    return {
        "pondkeeper.truncated": "true" if ending.truncated else "false",
        "pondkeeper.limit": ending.limit or "",
        "pondkeeper.row_count": str(ending.row_count),
    }

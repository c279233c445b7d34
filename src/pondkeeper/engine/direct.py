"""How a column of an Arrow stream is staged: by the engine, or without it where Arrow's own cast is known to be the same.

The engine's way is right for every value. The direct way costs a fifth of its processor time, and is for the values that
nearly all columns have; it is asked batch by batch, and says so when a batch is not for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Direct:
    """Arrow's cast does what the engine's SQL does, when all values lie above that one (of dates: days since 1970, of
    timestamps: microseconds)."""

    above: int | None = None


@dataclass(frozen=True)
class Column:
    """A staged column: its name, that of the column in the stream, SQL over the stream's columns, and the way without it.

    `is_json`: what comes is JSON, also where the stream calls it text; the engine is not to judge it, as a cast would.
    """

    name: str
    source: str
    sql: str
    direct: Direct | None = None
    is_json: bool = False


def directly(batch: pa.RecordBatch, columns: Sequence[Column], schema: pa.Schema) -> pa.RecordBatch | None:
    """The batch as it is staged, without the engine; None when it has a value that only the engine can tell."""
    import pyarrow as pa

    arrays = []
    for column, field in zip(columns, schema, strict=True):
        array = batch.column(column.source)
        if column.direct is None or not _is_above(array, column.direct.above):
            return None
        if array.type != field.type:
            try:
                array = _storage(array).cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # Why: the engine knows more, or says what is wrong.
                return None
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _storage(array: pa.Array) -> pa.Array:
    """A number comes as text that says it was one."""
    return getattr(array, "storage", array)


def _is_above(array: pa.Array, bound: int | None) -> bool:
    if bound is None:
        return True
    import pyarrow.compute as pc

    # Why `value`: Python has no dates before the year 1.
    least = pc.min(array)
    return not least.is_valid or least.value > bound

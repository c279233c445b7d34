"""How an answer says that it was cut: read from its last bytes, without an engine."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pondkeeper.client.endings import TAIL_BYTES, limit_in

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CUT = {"pondkeeper.truncated": "true", "pondkeeper.limit": "max_bytes", "pondkeeper.row_count": "5"}
WIDTHS = [1, 300]
pa: Any = pytest.importorskip("pyarrow")


def table(width: int) -> Any:
    """Rows whose texts hold the very words that the end of an answer says."""
    texts = ["pondkeeper.limit", "pondkeeper.truncated\x18\x04true", "x", "\x18\x10pondkeeper.limit", "max_rows"]
    return pa.table({f"column number {number}": texts for number in range(width)})


def arrow(width: int, cut: dict[str, str] | None) -> bytes:
    sink = pa.BufferOutputStream()
    rows = table(width)
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
        if cut:
            writer.write_batch(pa.RecordBatch.from_pylist([], schema=rows.schema), custom_metadata=cut)
    return bytes(sink.getvalue().to_pybytes())


def parquet(width: int, cut: dict[str, str] | None) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table(width).schema) as writer:
        writer.write_table(table(width))
        if cut:
            writer.add_key_value_metadata(cut)
    return sink.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("content_type", "make"), [(ARROW, arrow), (PARQUET, parquet)])
def test_a_cut_answer_names_its_limit(content_type: str, make: Any, width: int) -> None:
    """The limit is found in the last bytes alone; a whole answer names none, whatever its values say."""
    assert limit_in(content_type, make(width, CUT)[-TAIL_BYTES:]) == "max_bytes"
    assert limit_in(content_type, make(width, None)[-TAIL_BYTES:]) is None
    assert limit_in(content_type, make(width, CUT | {"pondkeeper.limit": "max_rows"})[-TAIL_BYTES:]) == "max_rows"


@pytest.mark.parametrize("content_type", [ARROW, PARQUET, "application/json", "text/csv", ""])
@pytest.mark.parametrize(
    "tail", [b"", b"\xff" * 5000, b"\xff\xff\xff\xff" + b"\xff" * 7 + bytes(5), bytes(100), b'"truncated":true']
)
def test_bytes_that_end_otherwise_say_nothing(content_type: str, tail: bytes) -> None:
    """No tail makes it fail or find a limit."""
    assert limit_in(content_type, tail) is None


@pytest.mark.parametrize("made", [arrow(3, CUT), parquet(3, CUT)], ids=["arrow", "parquet"])
def test_no_damage_makes_it_fail(made: bytes) -> None:
    """Whatever byte is another one, there is an answer or none, and no exception."""
    for position in range(0, len(made), 3):
        damaged = bytearray(made)
        damaged[position] ^= 0xFF
        for content_type in (ARROW, PARQUET):
            limit_in(content_type, bytes(damaged))

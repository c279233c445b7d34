"""Bodies of a few bytes that stand for very much: levels without end, and rows."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pondkeeper.errors import BodyInvalid, BodyTooLarge, RowsInvalid
from tests.staging.conftest import Ground, as_arrow, as_parquet

LEVELS = 200_000
MANY = 5_000_000
DEEP = b"[" * LEVELS + b"]" * LEVELS
BROKEN = {
    "a list": ("ndjson", b'{"a": 1, "b": ' + DEEP + b"}\n", "nested too deeply"),
    "objects": ("ndjson", b'{"b": ' * LEVELS + b"1" + b"}" * LEVELS + b"\n", "nested too deeply"),
    "a list that never ends": ("ndjson", b'{"a": 1, "b": ' + b"[" * LEVELS + b"\n", "nested too deeply"),
    "an element": ("json", b'[{"a": 1, "b": ' + DEEP + b"}]", "nested too deeply"),
    "a row": ("json", b'{"columns": ["a", "b"], "rows": [[1, ' + DEEP + b"]]}", "nested too deeply"),
    "the columns": ("json", b'{"columns": ' + DEEP + b', "rows": [[1, 2]]}', "no list of `columns`"),
    "what follows the rows": ("json", b'{"columns": ["a", "b"], "rows": [[1, "x"]], "more": ' + DEEP + b"}", "no JSON"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_nested_without_end_is_an_error_of_the_body(ground: Ground, what: str) -> None:
    """It is refused by whoever reads it, who lives on; and the same, nested a little, is taken."""
    form, body, why = BROKEN[what]
    with pytest.raises((RowsInvalid, BodyInvalid)) as refused:
        ground.stage(body, form)
    assert why in f"{refused.value.message} {refused.value.details}"
    assert ground.ingest(b'{"a": 1, "b": "[[[[1]]]]"}\n', "ndjson").rows == 1


@pytest.mark.parametrize("levels", [1, 8, 9, 101, 500])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_a_table_made_for_deep_values_keeps_them_as_json(ground: Ground, levels: int, pair: str) -> None:
    """Types of many levels take DuckDB minutes to read: what is deeper than eight becomes JSON, whole."""
    begin = "[" if pair == "[]" else '{"k":'
    ground.ingest(f'{{"v": {begin * levels}7{pair[1] * levels}}}\n', "ndjson", "made", create=True)
    ground.ingest(f'{{"n": 1, "v": {begin * levels}7{pair[1] * levels}}}\n', "ndjson", "mixed", create=True)
    assert [row[0] for row in ground.run("SELECT typeof(n) FROM mixed")] == ["BIGINT"]
    [[made]] = ground.run("SELECT typeof(v) FROM made")
    assert ("JSON" in made) == (levels > 8)
    [[text]] = ground.run("SELECT to_json(v)::VARCHAR FROM made")
    assert text.count("7") == 1
    assert text.count(pair[0]) == levels


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv", "ndjson"])
def test_more_rows_than_there_may_be_are_refused_by_their_number(ground: Ground, form: str) -> None:
    """Whatever the format; as many as there may be are taken."""
    table = pa.table({"a": pa.array([1, 2, 3], pa.int32()), "b": ["x", "y", "z"]})
    bodies = {"parquet": as_parquet(table), "arrow": as_arrow(table), "csv": b"a,b\n1,x\n2,y\n3,z\n"}
    body = bodies.get(form, b'{"a":1,"b":"x"}\n{"a":2}\n{"a":3}\n')
    with pytest.raises(BodyTooLarge, match="more than 2 rows") as refused:
        ground.stage(body, form, max_rows=2)
    assert refused.value.details["max_rows"] == 2
    assert ground.stage(body, form, max_rows=3).rows == 3


def test_millions_of_rows_in_a_few_bytes_are_counted_before_they_are_read(ground: Ground) -> None:
    """A Parquet file says how many rows it has: none of them is unpacked to find out."""
    ground.run("CREATE TABLE n (a INTEGER)")
    body = as_parquet(pa.table({"a": pa.nulls(MANY, pa.int32())}), compression="zstd")
    assert len(body) < MANY / 100, "the positive control: it is small"
    with pytest.raises(BodyTooLarge, match="more than 1,000,000 rows"):
        ground.stage(body, "parquet", "n", max_rows=1_000_000)

"""JSON documents cut into their rows, wherever the pieces in which they are read happen to end."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pondkeeper.engine.intake.sources import document
from pondkeeper.engine.intake.sources.document import Document
from pondkeeper.errors import BodyInvalid

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.text(max_size=6), values, max_size=4), max_size=6)


def cut(text: str, piece_bytes: int) -> tuple[list[str] | None, list[Any]]:
    """The columns and the rows of a document that is read in pieces of this size."""
    before, document._READ_BYTES = document._READ_BYTES, piece_bytes
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "body"
            path.write_text(text)
            found = Document(path)
            return found.column_names(), [json.loads(row) for _, row in found.rows()]
    finally:
        document._READ_BYTES = before


@settings(deadline=None)
@given(rows, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_arrays(given_rows: list[dict[str, Any]], piece_bytes: int, indent: int | None, ascii_only: bool) -> None:
    """Any array of objects gives its objects."""
    text = json.dumps(given_rows, indent=indent, ensure_ascii=ascii_only)

    assert cut(text, piece_bytes) == (None, given_rows)


@settings(deadline=None)
@given(st.lists(st.lists(values, min_size=2, max_size=2), max_size=5), st.integers(1, 40), values)
def test_answers(given_rows: list[list[Any]], piece_bytes: int, other: Any) -> None:
    """Columns and rows, as a query answers, with anything before and behind."""
    text = json.dumps({"x": {"rows": [other]}, "columns": [{"name": "a"}, "b"], "rows": given_rows, "more": other})

    assert cut(text, piece_bytes) == (["a", "b"], given_rows)


@settings(deadline=None)
@given(rows.filter(bool), st.integers(1, 40), st.data())
def test_documents_that_break_off(given_rows: list[dict[str, Any]], piece_bytes: int, data: st.DataObject) -> None:
    """One that lost its end is no document, wherever it was cut."""
    text = json.dumps(given_rows)
    end = data.draw(st.integers(0, len(text) - 1))

    with pytest.raises((BodyInvalid, json.JSONDecodeError)):
        cut(text[:end], piece_bytes)


@pytest.mark.parametrize(
    "text", ["", " ", "5", "null", '"x"', "[1,2] x", "[{}] [{}]", '{"rows": [[1]]}', '{"columns": 5, "rows": [[1]]}', '{"columns": ["a"], "rows": [[1]]']
)
def test_documents_that_are_none(text: str) -> None:
    with pytest.raises(BodyInvalid):
        cut(text, 7)


def test_one_object_is_one_row() -> None:
    assert cut('{"a": [1, {"rows": 5}], "b": "rows"}', 3) == (None, [{"a": [1, {"rows": 5}], "b": "rows"}])


def test_a_row_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is held in memory, so it has a bound."""
    monkeypatch.setattr(document, "MAX_ROW_BYTES", 1000)
    with pytest.raises(BodyInvalid, match="longer"):
        cut('[{"a": "' + "x" * 10_000 + '"}]', 100)

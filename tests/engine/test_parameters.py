"""Parameters fit the placeholders, and DuckDB holds them exactly."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from pondkeeper.engine.parameters import bind
from pondkeeper.errors import ParameterInvalid, PondkeeperError
from tests.engine.rendering import answer

KEPT = [
    (None, "null"),
    (True, "true"),
    (-1, "-1"),
    (2**63 - 1, str(2**63 - 1)),
    (2**64, f'"{2**64}"'),
    (-(2**127), f'"{-(2**127)}"'),
    (2**128 - 1, f'"{2**128 - 1}"'),
    (0.1, "0.1"),
    ("", '""'),
    ("a'b\"\n漢", '"a\'b\\"\\n漢"'),
    ([1, 2, None], "[1,2,null]"),
    ([[0.5], []], "[[0.5],[]]"),
    ({"a": 1, "b c": [True]}, '{"a":1,"b c":[true]}'),
]


@pytest.mark.parametrize(("value", "shown"), KEPT)
@pytest.mark.parametrize("named", [False, True])
def test_a_parameter_comes_back_as_it_went_in(
    guest: duckdb.DuckDBPyConnection, value: Any, shown: str, named: bool
) -> None:
    """Every value that JSON can carry is bound exactly, by place and by name."""
    sql, given = ("select $it as x", {"it": value}) if named else ("select ? as x", [value])

    _, body = answer(guest, sql, "ndjson", parameters=given)

    assert body.decode() == f'{{"x":{shown}}}\n'


@pytest.mark.parametrize(
    ("sql", "given"),
    [
        ("select 1", [1]),
        ("select 1", {"a": 1}),
        ("select ?", None),
        ("select ?", []),
        ("select ?, ?", [1]),
        ("select ?", [1, 2]),
        ("select ?", {"a": 1}),
        ("select $a", [1]),
        ("select $a", {"b": 1}),
        ("select $a", {"a": 1, "b": 2}),
        ("select $a", {"a": 1, "A": 2}),
        ("select ?, $3", [1, 2]),
        ("select ?", "text"),
        ("select ?", [2**128]),
        ("select ?", [-(2**127) - 1]),
        ("select ?", ["\ud800"]),
        ("select ?", [{}]),
        ("select ?", [{"key": [1], "value": [2]}]),
        ("select ?", [object()]),
    ],
)
def test_parameters_that_do_not_fit_are_refused(guest: duckdb.DuckDBPyConnection, sql: str, given: Any) -> None:
    """Too many, too few, of the wrong name, or beyond what DuckDB holds: an error that says so, and nothing runs."""
    with pytest.raises(ParameterInvalid):
        answer(guest, sql, parameters=given)


def test_nothing_and_an_empty_list_mean_no_parameters() -> None:
    """A request without parameters, with an empty list or an empty object is the same request."""
    assert bind(frozenset(), None) is bind(frozenset(), []) is bind(frozenset(), {}) is None


def test_deep_nesting_is_refused_before_the_engine_sees_it() -> None:
    """A hundred lists in each other are an error, not a stack overflow."""
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(ParameterInvalid):
        bind({"1"}, [value])


def test_a_list_of_unlike_values_is_a_clear_error_or_a_list(guest: duckdb.DuckDBPyConnection) -> None:
    """DuckDB finds a common type for mixed values or says that there is none; it is never an internal error."""
    try:
        _, body = answer(guest, "select ? as x", "ndjson", parameters=[[1, "a", [2]]])
    except PondkeeperError as refused:
        assert refused.code != "internal"
    else:
        assert b"a" in body

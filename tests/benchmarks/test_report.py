"""A figure says honestly what was measured and whether its bar was met."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import Figure, as_json, as_table, at_most, percentile, ratio_at_least, ratio_at_most


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest rank: never an interpolation, and the p99 of a few values is the largest of them."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("latency", 50.0, "ms", bar=at_most(50)), True),
        (Figure("latency", 50.1, "ms", bar=at_most(50)), False),
        (Figure("time", 2.0, "s", "peer", 4.0, ratio_at_most(0.6)), True),
        (Figure("time", 3.0, "s", "peer", 4.0, ratio_at_most(0.6)), False),
        (Figure("rate", 2.0, "/s", "peer", 2.0, ratio_at_least(1.0)), True),
        (Figure("no peer was there", 2.0, "/s", bar=ratio_at_least(1.0)), False),
        (Figure("no bar", 2.0, "/s"), None),
    ],
)
def test_a_bar_is_met_or_not(figure: Figure, met: bool | None) -> None:
    """The bar is on the value or on the ratio, inclusive; a ratio without a peer meets nothing."""
    assert figure.met is met
    assert json.loads(as_json("name", [figure]))["figures"][0]["met"] is met


def test_the_table_shows_what_is_not_met() -> None:
    """A bar that is not met cannot be overlooked."""
    table = as_table([Figure("latency", 51.0, "ms", bar=at_most(50), note="a busy machine")])
    assert "NO" in table.splitlines()[2]
    assert "a busy machine" in table

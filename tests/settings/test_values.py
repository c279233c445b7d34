"""Sizes, durations and strict types."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.settings.leaves import Leaf, leaves
from pondkeeper.settings.values import ValueUnusable, from_text, from_value, parse_duration, parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1024", 1024),
        ("512MB", 512_000_000),
        ("512 mb", 512_000_000),
        ("2GiB", 2 * 1024**3),
        ("1.5KiB", 1536),
        ("3B", 3),
        ("1TB", 10**12),
    ],
)
def test_size_reads_units(text: str, size_bytes: int) -> None:
    """A size is read with decimal and binary units, in any case, with or without a blank."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1 QB", "1e3", "0x10", "1MBMB", "١MB", "nan", "1,000", "1 M B"])
def test_size_refuses_what_is_none(text: str) -> None:
    """Anything else is refused and not guessed at."""
    with pytest.raises(ValueError, match=r".*"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("250ms", 0.25), ("5m", 300.0), ("1.5", 1.5), ("2h", 7200.0), ("1d", 86_400.0)]
)
def test_duration_reads_units(text: str, seconds: float) -> None:
    """A duration is read with its unit; a bare number is seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "30 sec", "1M", "inf", "nan", "1e5s"])
def test_duration_refuses_what_is_none(text: str) -> None:
    """A month is no minute, and infinity is no deadline."""
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("readers.count", True),
        ("readers.count", 4.0),
        ("readers.count", "4"),
        ("readers.count", None),
        ("readers.count", [4]),
        ("readers.max_bytes", False),
        ("readers.timeout_s", True),
        ("readers.timeout_s", math.nan),
        ("readers.timeout_s", math.inf),
        ("readers.timeout_s", 10**400),
        ("server.host", 1),
        ("server.host", ""),
        ("server.host", "a\nb"),
        ("server.allowed_hosts", "a.example"),
        ("server.allowed_hosts", ["a", 1]),
        ("log.level", "INFO "),
        ("log.level", "verbose"),
        ("server.port", -1),
        ("server.port", 65_536),
        ("snapshots.keep", 0),
    ],
)
def test_typed_values_are_strict(name: str, value: object) -> None:
    """A bool is no number, a text no integer, a float no count, and bounds hold."""
    with pytest.raises(ValueUnusable):
        from_value(leaves()[name], value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("readers.count", " 4 ", 4),
        ("readers.memory_limit_bytes", "1GiB", 1024**3),
        ("readers.timeout_s", "250ms", 0.25),
        ("snapshots.pause_ratio", "0.5", 0.5),
        ("server.allowed_hosts", "a.example, b.example", ("a.example", "b.example")),
        ("server.allowed_hosts", "", ()),
        ("log.level", "debug", "debug"),
    ],
)
def test_text_is_read_by_the_kind_of_its_setting(name: str, text: str, value: object) -> None:
    """The environment and the command line carry only text; each setting reads its own kind from it."""
    assert from_text(leaves()[name], text) == value


@given(st.sampled_from(list(leaves().values())), st.text(max_size=60))
def test_any_text_is_a_value_or_refused(leaf: Leaf, text: str) -> None:
    """No text makes a reader of values fail in another way, and what it accepts it accepts again as a typed value."""
    try:
        value = from_text(leaf, text)
    except ValueUnusable as error:
        message = str(error)
    else:
        message = ""
        assert from_value(leaf, value) == value

    assert len(message) < 200


@given(st.integers(min_value=0, max_value=2**62))
def test_shown_sizes_read_back(size_bytes: int) -> None:
    """What is printed as a size is the same size when it is typed in."""
    assert parse_size(shown_size(size_bytes)) == size_bytes


def test_a_token_in_the_wrong_place_is_not_shown() -> None:
    """A key pasted into a setting does not travel into the error and from there into a log."""
    with pytest.raises(ValueUnusable) as caught:
        from_text(leaves()["readers.count"], "pk_abcdefghijkl_0123456789")

    assert "0123456789" not in str(caught.value)

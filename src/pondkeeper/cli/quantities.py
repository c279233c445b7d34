"""Sizes, durations and times as people read and type them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pondkeeper.settings.values import parse_duration, parse_size

if TYPE_CHECKING:
    FloatType = click.ParamType[float]
    IntType = click.ParamType[int]
else:  # Why: click's types take a parameter only since its newest versions.
    FloatType = IntType = click.ParamType


class Duration(FloatType):
    """An option such as 30s, 250ms, 5m or 1h; a plain number means seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float | int):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 30s, 250ms or 5m", param, ctx)


class Size(IntType):
    """An option such as 512MB or 2GiB; a plain number means bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError:
            self.fail(f"{value!r} is not a size such as 512MB or 2GiB", param, ctx)


DURATION = Duration()
SIZE = Size()


def show_bytes(count: float | None) -> str:
    """`1.5 GB`, `260 kB`, `12 B`; a dash when unknown."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def show_seconds(seconds: float | None) -> str:
    """`12 ms`, `3.4 s`, `5 min`, `7 h`, `3 days`; a dash when unknown."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.0f} days"


def age_s(moment: str | float | None) -> float | None:
    """Seconds since a moment: ISO 8601 or seconds since the epoch; None when it says neither."""
    if moment is None:
        return None
    if isinstance(moment, int | float):
        return max(0.0, datetime.now(UTC).timestamp() - moment)
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - then).total_seconds())


def show_age(moment: str | float | None) -> str:
    """How long ago a moment was."""
    return show_seconds(age_s(moment))

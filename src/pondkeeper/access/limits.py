"""Limits: their names, how they are written, and how those of several levels become one: the tightest of each wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from pondkeeper.errors import InvalidRequest
from pondkeeper.settings.values import parse_duration, parse_size

_DURATIONS: Final = frozenset({"timeout_s"})
_SIZES: Final = frozenset({"max_bytes", "memory", "max_statement_bytes"})
_NUMBERS: Final = frozenset({"requests_per_s"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request, or all of a key together, may take; None is no limit of this level."""

    timeout_s: float | None = None
    max_rows: float | None = None
    max_bytes: float | None = None
    memory: float | None = None
    threads: float | None = None
    concurrent: float | None = None
    requests_per_s: float | None = None
    max_statement_bytes: float | None = None
    max_parameters: float | None = None

    def to_wire(self) -> dict[str, float]:
        """Those that are set."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}


NAMES: Final = tuple(field.name for field in fields(Limits))


def limits_of(written: Mapping[str, Any] | None) -> Limits:
    """Limits as a request or a file names them: numbers, or texts such as "5s" and "512MB". Raises InvalidRequest."""
    return Limits(**{name: _value(name, value) for name, value in (written or {}).items()})


def limits_in(words: Iterable[str]) -> Limits:
    """Limits as typed: `timeout_s=5s`, `max_rows=1000`. Raises InvalidRequest."""
    return limits_of(dict(_pair(word) for word in words))


def _pair(word: str) -> tuple[str, str]:
    name, is_given, value = word.partition("=")
    if not is_given:
        raise InvalidRequest(f"A limit is written as name=value, and this is {word[:80]!r}.")
    return name, value


def _value(name: str, written: Any) -> float:
    if name not in NAMES:
        raise InvalidRequest(f"There is no limit {name[:80]!r}; there are {', '.join(NAMES)}.")
    try:
        value = _number(name, written)
    except (ValueError, OverflowError):
        value = -1.0
    # Trap: NaN is not greater than anything; written this way round it is refused.
    if not 0 < value < 2**62:
        raise InvalidRequest(f"The limit {name} cannot be {str(written)[:80]!r}.")
    return value if name in _DURATIONS | _NUMBERS else int(value)


def _number(name: str, written: Any) -> float:
    if not isinstance(written, str):
        return -1.0 if isinstance(written, bool) else float(written)
    if name in _DURATIONS:
        return parse_duration(written)
    return parse_size(written) if name in _SIZES else float(written)


@dataclass(frozen=True, slots=True)
class Effective:
    """The limits that hold for a key on a database, and of which level each is."""

    limits: Limits
    levels: Mapping[str, str]


def tightest(levels: Mapping[str, Limits]) -> Effective:
    """The smallest of each limit."""
    chosen: dict[str, float] = {}
    said: dict[str, str] = {}
    for level, limits in levels.items():
        for name, value in limits.to_wire().items():
            if name not in chosen or value < chosen[name]:
                chosen[name], said[name] = value, level
    return Effective(Limits(**chosen), said)

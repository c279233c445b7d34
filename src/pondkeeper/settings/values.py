"""From what a person wrote to the value of a leaf: strict types, sizes with units, durations with units, bounds."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pondkeeper.settings.leaves import Leaf

SIZE_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
DURATION_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}

_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]{0,3})\Z", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}\Z", re.ASCII)
_TOKEN = re.compile(r"pk_[A-Za-z0-9_-]{4,}")
_EXPECTED = {
    "size": "a size such as 512MB or 2GiB, or a whole number of bytes",
    "duration": "a duration such as 30s, 250ms or 5m, or a number of seconds",
    "integer": "a whole number",
    "number": "a number",
    "text": "a text",
    "list": "a list of texts",
}


class ValueUnusable(Exception):
    """What was written cannot be the value of this setting; the text says what was expected."""


def parse_size(text: str) -> int:
    """Bytes of a size such as "512MB", "1.5 GiB" or "1024"; raises ValueError."""
    match = _QUANTITY.match(text.strip())
    if match is None or match[2].upper() not in SIZE_UNITS:
        raise ValueError(text)
    unit = SIZE_UNITS[match[2].upper()]
    return int(match[1]) * unit if match[1].isdigit() else int(float(match[1]) * unit)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "30s", "250ms", "5m" or "1.5"; raises ValueError."""
    match = _QUANTITY.match(text.strip())
    if match is None or match[2] not in DURATION_UNITS:
        raise ValueError(text)
    return float(match[1]) * DURATION_UNITS[match[2]]


def _shown(written: Any) -> str:
    """What was written, short, on one line, and with no key in it: it goes into errors and logs."""
    return _TOKEN.sub("pk_…", repr(written))[:80]


def _unusable(written: Any, expected: str) -> ValueUnusable:
    return ValueUnusable(f"{_shown(written)} is not {expected}")


def from_text(leaf: Leaf, text: str) -> Any:
    """The value of a text from the environment or the command line."""
    try:
        return _bounded(leaf, _parsed(leaf, text.strip()), text)
    except (ValueError, OverflowError) as error:
        raise _unusable(text, _EXPECTED[leaf.kind]) from error


def _parsed(leaf: Leaf, text: str) -> Any:
    match leaf.kind:
        case "size":
            return parse_size(text)
        case "duration":
            return parse_duration(text)
        case "integer":
            return _whole(text)
        case "number":
            return float(text)
        case "list":
            return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _whole(text: str) -> int:
    if not _INTEGER.match(text):
        raise ValueError(text)
    return int(text)


def from_value(leaf: Leaf, value: Any) -> Any:
    """The value of something typed, from TOML or a flag. Strict: a bool is no number, a text no integer."""
    if isinstance(value, str) and leaf.kind in ("size", "duration"):
        return from_text(leaf, value)
    return _bounded(leaf, _typed(leaf, value), value)


def _typed(leaf: Leaf, value: Any) -> Any:
    # Trap: bool is a subclass of int, so `count = true` would count as 1.
    if leaf.kind in ("size", "integer") and type(value) is int:
        return value
    if leaf.kind in ("duration", "number") and type(value) in (int, float):
        return _finite(leaf, value)
    if leaf.kind == "text" and type(value) is str:
        return value
    if leaf.kind == "list" and isinstance(value, (list, tuple)) and all(type(part) is str for part in value):
        return tuple(value)
    raise _unusable(value, _EXPECTED[leaf.kind])


def _finite(leaf: Leaf, value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise _unusable(value, _EXPECTED[leaf.kind]) from error


def _bounded(leaf: Leaf, value: Any, written: Any) -> Any:
    if leaf.choices and value not in leaf.choices:
        raise _unusable(written, f"one of {', '.join(leaf.choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _unusable(written, _EXPECTED[leaf.kind])
    _check_characters(value)
    if leaf.minimum is not None and value < leaf.minimum:
        raise ValueUnusable(f"{_shown(written)} is less than the least, {shown(leaf, leaf.minimum)}")
    if leaf.maximum is not None and value > leaf.maximum:
        raise ValueUnusable(f"{_shown(written)} is more than the most, {shown(leaf, leaf.maximum)}")
    return value


def shown(leaf: Leaf, value: Any) -> str:
    """A value of a leaf as people write it: `16 MiB`, `0.25 s`, `3`, `info`, `(none)`."""
    if leaf.kind == "list":
        return ", ".join(value) or "(none)"
    if leaf.kind == "size":
        return shown_size(int(value))
    number = f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {leaf.unit}" if leaf.unit in ("s", "rows") else number


def shown_size(size_bytes: int) -> str:
    """Bytes in the largest binary unit that is exact: `16 MiB`, `1000 B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = SIZE_UNITS[unit.upper()]
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"


def _check_characters(value: Any) -> None:
    """A text is one printable line: it goes into socket calls, headers and the log."""
    texts = value if isinstance(value, tuple) else (value,)
    for text in texts:
        if isinstance(text, str) and not (text and text.isprintable()):
            raise _unusable(text, "a text of printable characters")

"""The format of an answer: `?format=` by name, else what `Accept` likes best, else JSON."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs

from pondkeeper.errors import InvalidRequest, NotAcceptable

CONTENT_TYPES: Final = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
# Why: of these formats an answer that a limit has cut says so in itself; of the others only the head can.
TELLS_WHEN_CUT: Final = frozenset({"json", "arrow", "parquet"})
_ALIASES: Final = {"application/ndjson": "ndjson", "application/jsonl": "ndjson", "application/csv": "csv"}
_NAMES: Final = {type_: name for name, type_ in CONTENT_TYPES.items()} | _ALIASES


def chosen_format(accept: bytes | None, query_string: bytes) -> str:
    """The name of the format to answer in. Raises NotAcceptable, or InvalidRequest for an unknown `?format=`."""
    if query_string:
        named = parse_qs(query_string.decode("latin-1")).get("format")
        if named:
            return _named(named[-1])
    if accept is None or accept == b"*/*":
        return "json"
    return _accepted(accept)


def _named(name: str) -> str:
    if name not in CONTENT_TYPES:
        raise InvalidRequest(f"There is no format {name[:40]!r}; there are {', '.join(CONTENT_TYPES)}.")
    return name


@lru_cache(maxsize=256)
def _accepted(accept: bytes) -> str:
    wishes = [_wish(part) for part in accept.decode("latin-1").split(",") if part.strip()]
    refused = {range_ for range_, quality in wishes if quality <= 0}
    # Why stable: of equals the one named first wins, and a wildcard only where nothing was named exactly.
    for range_, quality in sorted(wishes, key=lambda wish: (-wish[1], "*" in wish[0])):
        for type_, name in _NAMES.items():
            if quality > 0 and type_ not in refused and _covers(range_, type_):
                return name
    if not wishes:
        return "json"
    raise NotAcceptable(supported=list(CONTENT_TYPES.values()))


def _wish(part: str) -> tuple[str, float]:
    """A media range and its quality."""
    range_, *options = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for option in options:
        if option.startswith("q="):
            quality = _quality(option[2:])
    return range_, quality


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _covers(range_: str, type_: str) -> bool:
    return range_ in (type_, "*/*") or (range_.endswith("/*") and type_.startswith(range_[:-1]))

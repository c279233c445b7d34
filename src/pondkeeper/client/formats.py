"""The formats in which a keeper answers, by the short names that the client and the CLI use."""

from __future__ import annotations

from typing import Final

CONTENT_TYPES: Final[dict[str, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
BINARY: Final = frozenset({"arrow", "parquet"})


def content_type(name: str) -> str:
    """The media type to put into Accept for a format's short name."""
    try:
        return CONTENT_TYPES[name]
    except KeyError:
        raise ValueError(f"unknown format {name!r}; one of {', '.join(CONTENT_TYPES)}") from None

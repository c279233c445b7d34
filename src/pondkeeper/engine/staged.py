"""Rows that a process has staged for itself as Parquet, read back without a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import duckdb

from pondkeeper.engine.faults import translated

ROWS_AT_ONCE: Final = 1000
MEMORY: Final = "256MB"


def rows_of_parquet(path: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a file, in their order, a thousand at a time. One thread at a time may ask. Raises PondkeeperError."""
    config: dict[str, str | bool | int | float | list[str]] = {"threads": 1, "memory_limit": MEMORY, "temp_directory": ""}
    with translated(), duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET enable_progress_bar = false")
        found = connection.execute("SELECT * FROM read_parquet(?)", [path])
        while rows := found.fetchmany(ROWS_AT_ONCE):
            yield from rows

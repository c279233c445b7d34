"""Proof that a file is a database: DuckDB opens it and counts the rows of every table. Its blocks were proved before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pondkeeper.engine.catalog import tables_of
from pondkeeper.engine.faults import translated
from pondkeeper.engine.opening import ReaderConfig, open_snapshot

Tell = Callable[[str], None]
ENTRY: Final = "pondkeeper.engine.proving"


def answer(question: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Open the file `path` read-only and count the rows of each table. Raises PondkeeperError."""
    config = ReaderConfig(
        question["path"],
        question["memory_limit_bytes"],
        question["threads"],
        question["temp_directory"],
        question["temp_limit_bytes"],
    )
    with translated():
        connection = open_snapshot(config)
        try:
            [catalog] = connection.execute("SELECT current_database()").fetchone() or ("",)
            rows = {}
            for table in tables_of(connection, catalog):
                tell(f"reading table {table.shown}")
                [rows[table.shown]] = connection.execute(f"SELECT count(*) FROM {table.within(catalog)}").fetchone() or (0,)
        finally:
            connection.close()
    return {"tables": len(rows), "rows": rows}

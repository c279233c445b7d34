"""Rows that come from elsewhere as a stream of Arrow, made into staged Parquet: cast by the engine, a row group at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb

from pondkeeper.engine.catalog import literal
from pondkeeper.engine.faults import translated

ROW_GROUP_ROWS: Final = 122_880  # that of a table: what is loaded fits without being cut
_ROW_GROUP_BYTES: Final = "128MB"
_SOURCE: Final = "source"


class Stager:
    """A DuckDB in memory that writes Parquet into one folder and can do nothing else outside; safe in threads.

    `stage` raises PondkeeperError for what the engine refuses, and what the stream raises as the engine wraps it.
    """

    def __init__(self, folder: Path, *, memory_limit_bytes: int, threads: int) -> None:
        self._connection = duckdb.connect(":memory:", config={"memory_limit": f"{memory_limit_bytes}B", "threads": threads})
        self._lock = threading.Lock()
        self._busy: set[duckdb.DuckDBPyConnection] = set()
        self._ended = False
        for statement in (
            f"SET temp_directory = {literal(str(folder / 'spill'))}",
            f"SET allowed_directories = [{literal(str(folder) + '/')}]",
            "SET enable_external_access = false",
            "SET enable_progress_bar = false",
            "SET python_enable_replacements = false",
            "SET preserve_insertion_order = false",  # Why: rows of a stream have no order, and to keep one costs a third
            "SET GLOBAL TimeZone = 'UTC'",
            "SET lock_configuration = true",
        ):
            self._connection.execute(statement)

    def stage(self, reader: Any, columns: list[tuple[str, str]], file: Path) -> int:
        """Write the rows of an Arrow stream to the file, as `(name, SQL over the stream's columns)` says; how many there were."""
        selected = ", ".join(f"{value} AS {_quoted(name)}" for name, value in columns)
        options = f"FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, ROW_GROUP_SIZE_BYTES '{_ROW_GROUP_BYTES}'"
        with self._cursor() as cursor, translated():
            cursor.register(_SOURCE, reader)
            try:
                copied = cursor.execute(f"COPY (SELECT {selected} FROM {_SOURCE}) TO {literal(str(file))} ({options})").fetchall()
            finally:
                cursor.unregister(_SOURCE)
        return int(copied[0][0])

    def end(self) -> None:
        """Interrupt whatever is being staged, and let nothing begin any more."""
        with self._lock:
            self._ended = True
            for cursor in self._busy:
                cursor.interrupt()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._connection.cursor()
        with self._lock:
            if self._ended:
                cursor.interrupt()
            self._busy.add(cursor)
        try:
            yield cursor
        finally:
            with self._lock:
                self._busy.discard(cursor)
            cursor.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""DuckDB as a user's own program has it: nothing fenced or locked down, and the file left whole and folded at the end."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from pondkeeper.engine.faults import translate, translated
from pondkeeper.engine.opening import NEW_FILE_STORAGE_VERSION, make_database

Connection = duckdb.DuckDBPyConnection  # the name by which other rooms annotate it, without importing duckdb


def open_plain_snapshot(path: str, temp_directory: str) -> Connection:
    """Open a snapshot read-only. Raises PondkeeperError."""
    try:
        # Trap: readers of one file share `<file>.tmp` by default, and on 1.5 spilling at the same time crashes them.
        return _quiet(duckdb.connect(path, read_only=True, config={"temp_directory": temp_directory}))
    except duckdb.Error as error:
        raise translate(error) from error


def open_plain_database(path: str) -> Connection:
    """Open a database read-write, made if it is missing. Raises PondkeeperError."""
    left_behind = Path(path + ".wal").exists()
    try:
        if not Path(path).exists():
            make_database(Path(path))
        connection = duckdb.connect(path, config={"storage_compatibility_version": NEW_FILE_STORAGE_VERSION})
        if left_behind:
            # Trap: 1.5 loses entries of secondary indexes when rows replayed from a WAL meet a second WAL.
            connection.execute("CHECKPOINT")
        return _quiet(connection)
    except duckdb.Error as error:
        raise translate(error) from error


def rows_of(connection: Connection, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a query. Raises PondkeeperError."""
    with translated():
        return connection.execute(query, parameters).fetchall()


def _quiet(connection: Connection) -> Connection:
    """Trap: after two seconds DuckDB draws a progress bar on stdout, even into a pipe, in the midst of what is data."""
    if not sys.stdout.isatty() and "IPython" not in sys.modules:
        connection.execute("SET enable_progress_bar = false")
    return connection


def close_plain_database(connection: Connection) -> bool:
    """Roll back what is not committed, fold the WAL into the file, and close it with all its cursors.

    Whether a transaction was open. Never raises: whatever fails here, what is committed is in the file or its WAL.
    """
    was_open = False
    with contextlib.suppress(duckdb.Error):  # there is none; or its user has closed it, or DuckDB has given it up
        connection.execute("ROLLBACK")
        was_open = True
    with contextlib.suppress(duckdb.Error):  # a cursor's open transaction is in the way: closing ends it, and folds
        connection.execute("CHECKPOINT")
    with contextlib.suppress(duckdb.Error):
        connection.close()
    return was_open


def collect_results() -> None:
    """Let go of relations and results that nobody refers to any more: each keeps its database open."""
    gc.collect()

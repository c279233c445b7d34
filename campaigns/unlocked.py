"""A child with a plain DuckDB, none of whose locks are shut: what is left between SQL and the machine is the fence alone.

The product cannot start it: it is not in the package, and a template forks only what its keeper names.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import duckdb

from pondkeeper.workers.frames import Pipe

MAX_TEXT = 200_000


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:  # noqa: ARG001  # Why: as every entry
    """Entry point: texts in, what DuckDB makes of the last of them out."""
    os.chdir(config["temp_directory"])
    os.environ["HOME"] = config["temp_directory"]
    options = {"temp_directory": config["temp_directory"], "memory_limit": "500MB", "threads": 1}
    connection = duckdb.connect(config["path"], read_only=config["read_only"], config=options)
    # Why off: nothing may stop a vector but the fence, so nothing is said that is not also true of a plain DuckDB.
    connection.execute("SET enable_progress_bar = false")
    while (message := pipe.receive()) is not None:
        pipe.send({"text": _run(connection, message["texts"])})


def _run(connection: duckdb.DuckDBPyConnection, texts: list[str]) -> str:
    said = ""
    cursor = connection.cursor()
    for text in texts:
        try:
            said = repr(cursor.execute(text).fetchmany(2000))[:MAX_TEXT]
        except Exception as error:  # noqa: BLE001  # Why: whatever it raises is what this text comes to
            said = f"{type(error).__name__}: {error}"[:MAX_TEXT]
    cursor.close()
    return said

"""The peer: a Quack server in a process of its own, and connections to it.

    python -m benchmarks.quack FILE PORT [THREADS]

serves FILE until stdin closes. Both sides need the httpfs extension as well: the client speaks HTTP through it, and
without it the server answers every handshake with a bare 500 (it takes its SHA-256 from there).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from benchmarks.extensions import load
from benchmarks.network import free_port

TOKEN = "benchmark-token"  # the server listens on localhost for the length of one run


def serve(file: str, port: int, threads: int | None) -> None:
    connection = duckdb.connect(file, config={"threads": threads} if threads else {})
    load(connection, "httpfs")
    load(connection, "quack")
    connection.execute(f"CALL quack_serve('quack:localhost:{port}', token = '{TOKEN}')")
    print("ready", flush=True)
    sys.stdin.read()


@contextmanager
def serving(file: Path, threads: int | None = None) -> Iterator[int]:
    """A Quack server on a database file; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.quack", str(file), str(port), *([str(threads)] if threads else [])]
    process = subprocess.Popen(  # in a session of its own, like the keeper
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the Quack server did not start; its error is above")
        yield port
    finally:
        process.kill()
        process.wait()


def connect(port: int) -> duckdb.DuckDBPyConnection:
    """A client's DuckDB with the server attached as `remote`."""
    connection = duckdb.connect()
    load(connection, "httpfs")
    load(connection, "quack")
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"CREATE SECRET (TYPE quack, TOKEN '{TOKEN}')")
    connection.execute(f"ATTACH 'quack:localhost:{port}' AS remote (TYPE quack)")
    return connection


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)

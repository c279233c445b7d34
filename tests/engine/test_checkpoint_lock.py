"""What DuckDB does that the writer is built around; when one of these fails, DuckDB has changed and we may become simpler."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import duckdb
import pytest


@pytest.mark.parametrize("statement", ["INSERT INTO t VALUES (1)", "UPDATE t SET n = 2", "CREATE TABLE u (n INTEGER)"])
def test_whoever_writes_waits_for_a_checkpoint_and_is_deaf(tmp_path: Path, statement: str) -> None:
    """A CHECKPOINT that began in quiet keeps every transaction from writing, and an interrupt does not end that wait."""
    with duckdb.connect(str(tmp_path / "pond.duckdb")) as connection:
        connection.execute("SET wal_autocheckpoint = '1TB'")
        connection.execute("CREATE TABLE t AS SELECT 0 AS n")
        _make_slow_to_checkpoint(connection)
        ended: dict[str, float] = {}
        checkpoint = threading.Thread(target=_run, args=(connection.cursor(), "CHECKPOINT", ended))
        writer = connection.cursor()
        interrupter = threading.Timer(0.05, writer.interrupt)
        began = time.monotonic()
        checkpoint.start()
        time.sleep(0.05)
        interrupter.start()
        _run(writer, statement, ended)
        for thread in (interrupter, checkpoint):
            thread.join()
        writer.close()

    assert ended["CHECKPOINT"] - began > 0.1  # the positive control: it took a while
    assert ended[statement] > ended["CHECKPOINT"] - 0.1


def _make_slow_to_checkpoint(connection: duckdb.DuckDBPyConnection) -> None:
    """Leave so much to checkpoint that it takes a while on this machine, however fast it is."""
    rows, took_s = 400_000, 0.0
    while took_s < 0.3:
        rows *= 2
        connection.execute(f"CREATE OR REPLACE TABLE big AS SELECT range AS n, md5(range::VARCHAR) AS s FROM range({rows})")
        connection.execute("CHECKPOINT").fetchall()
        connection.execute("UPDATE big SET s = md5(s) WHERE n % 499 = 0").fetchall()
        began = time.monotonic()
        connection.execute("CHECKPOINT").fetchall()
        took_s = time.monotonic() - began
    connection.execute("UPDATE big SET s = md5(s) WHERE n % 499 = 0").fetchall()


def _run(cursor: duckdb.DuckDBPyConnection, statement: str, ended: dict[str, float]) -> None:
    try:
        cursor.execute(statement).fetchall()
    except duckdb.InterruptException:
        pass
    ended[statement] = time.monotonic()

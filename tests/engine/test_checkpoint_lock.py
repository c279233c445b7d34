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
        connection.execute("CREATE TABLE big AS SELECT range AS n, md5(range::VARCHAR) AS s FROM range(800000)")
        connection.execute("CHECKPOINT").fetchall()
        connection.execute("UPDATE big SET s = md5(s) WHERE n % 499 = 0").fetchall()
        ended: dict[str, float] = {}
        checkpoint = threading.Thread(target=_run, args=(connection.cursor(), "CHECKPOINT", ended))
        writer = connection.cursor()
        began = time.monotonic()
        checkpoint.start()
        time.sleep(0.05)
        threading.Timer(0.05, writer.interrupt).start()
        _run(writer, statement, ended)
        checkpoint.join()

    assert ended["CHECKPOINT"] - began > 0.1  # the positive control: it took a while
    assert ended[statement] > ended["CHECKPOINT"] - 0.1


def _run(cursor: duckdb.DuckDBPyConnection, statement: str, ended: dict[str, float]) -> None:
    try:
        cursor.execute(statement).fetchall()
    except duckdb.InterruptException:
        pass
    ended[statement] = time.monotonic()
    cursor.close()

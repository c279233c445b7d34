"""A crash after a bulk load into a table with an index: what DuckDB 1.5 cannot replay never stands in a WAL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from pondkeeper.engine.bulk import ROW_GROUP_ROWS
from tests.conftest import StartKeeper
from tests.support.asking import Asked

pytestmark = pytest.mark.fault
TABLE = ["CREATE TABLE a (i BIGINT, s VARCHAR)", "CREATE INDEX by_i ON a (i)"]
BULK = f"INSERT INTO a SELECT range, 'bulk' FROM range({ROW_GROUP_ROWS})"
ONE = "INSERT INTO a VALUES (-1, 'one')"
PLAIN = """
    import os, sys, duckdb
    connection = duckdb.connect(sys.argv[1])
    connection.execute("SET wal_autocheckpoint = '1TB'")
    connection.execute("SET auto_checkpoint_skip_wal_threshold = 1000000000")
    for statement in sys.argv[2:]:
        connection.execute(statement)
    os.kill(os.getpid(), 9)
"""


def test_an_insert_after_a_bulk_load_survives_a_crash(start_keeper: StartKeeper) -> None:
    """Beside a copier that is slow, so that no checkpoint may begin: the insert waits for the one that folds the bulk load."""
    keeper = start_keeper()
    client = keeper.client()
    client.query("SELECT 1", at_least=client.execute(TABLE).version)
    [copier] = keeper.children("copier")
    os.kill(copier, signal.SIGSTOP)
    try:
        client.execute(ONE)  # its checkpoint is for the copier
        time.sleep(0.3)
        client.execute(BULK)
        insert = Asked(lambda: client.execute(ONE))
        time.sleep(0.5)  # it is acknowledged by now, or waits
        os.kill(keeper.writer_pid(), signal.SIGKILL)
    finally:
        os.kill(copier, signal.SIGCONT)

    insert.outcome()
    newest = client.execute("INSERT INTO a VALUES (-2, 'last')").version
    found = client.query("SELECT count(*), count(*) FILTER (i = -1) FROM a", at_least=newest).rows
    assert found == [[ROW_GROUP_ROWS + 3, 2]]


def test_duckdb_alone_cannot_replay_it(tmp_path: Path) -> None:
    """The positive control: 1.5 cannot open what 2.0 can; when it fails on neither, the rule is no longer needed."""
    file = tmp_path / "plain.duckdb"
    make = [sys.executable, "-c", textwrap.dedent(PLAIN), str(file), *TABLE, BULK, ONE]
    assert subprocess.run(make, check=False).returncode == -signal.SIGKILL
    look = [sys.executable, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1])", str(file)]
    opened = subprocess.run(look, capture_output=True, text=True, check=False)
    if version("duckdb").startswith("1."):
        assert "Failure while replaying WAL" in opened.stderr
    else:
        assert opened.returncode == 0, opened.stderr

"""Programs that open the file without asking: named, waited for, and what they write is published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import PondkeeperError
from tests.databases.conftest import wait_closed
from tests.support.asking import Asked
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import is_alive
from tests.support.strangers import Stranger

pytestmark = pytest.mark.usefixtures("closed_file")
COUNT = "SELECT count(*) FROM t"
PLAIN_SCRIPT = """
import sys, time, duckdb
give_up_at = time.monotonic() + 60
while True:
    try:
        with duckdb.connect(sys.argv[1]) as connection:
            connection.execute("INSERT INTO t VALUES (4711)")
        break
    except duckdb.IOException:
        if time.monotonic() > give_up_at:
            raise
        time.sleep(0.02)
"""


def published(client: Client, rows: int) -> None:
    """Wait until readers see so many rows."""
    wait_until(lambda: client.query(COUNT).scalar() == rows, what=f"{rows} rows in a snapshot")


def test_file_is_closed_soon_after_the_last_write(pond: KeeperProcess, client: Client) -> None:
    """About a second after the last write a plain `duckdb.connect` gets in, and not before: then it is refused."""
    client.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(duckdb.IOException, match="lock"):  # the positive control: the writer does hold it
        duckdb.connect(str(pond.target))
    began = time.monotonic()
    wait_closed(client)
    assert 0.3 < time.monotonic() - began < 20
    with duckdb.connect(str(pond.target)) as connection:
        assert connection.execute(COUNT).fetchall() == [(1,)]
    assert not pond.database.wal.exists()


def test_plain_script_gets_in_and_its_row_is_published(pond: KeeperProcess, client: Client) -> None:
    """A script that only tries `duckdb.connect` again and again gets its turn beside a client that writes in bursts."""
    script = subprocess.Popen([sys.executable, "-c", PLAIN_SCRIPT, str(pond.target)], stderr=subprocess.PIPE)
    sent = 0
    while script.poll() is None and sent < 40:
        for _ in range(5):
            client.execute("INSERT INTO t VALUES (?)", [sent])
            sent += 1
        time.sleep(1.6)
    _, errors = script.communicate(timeout=70)

    assert script.returncode == 0, errors
    published(client, sent + 1)


def test_stranger_is_named_in_status_and_reads_go_on(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """Who has the file open without asking is in the status by pid and program; readers do not care."""
    with Stranger(pond.target, tmp_path) as stranger:
        [seen] = wait_until(lambda: client.status("pond")["foreign"], what="a stranger in the status")
        stranger.execute("INSERT INTO t VALUES (1)")
        rows_meanwhile = client.query(COUNT).scalar()
        stranger.let_go()

    assert seen["pid"] == stranger.pid
    assert "python" in seen["program"]
    assert "stranger.py" in seen["program"]
    assert rows_meanwhile == 0
    published(client, 1)
    wait_until(lambda: not client.status("pond")["foreign"], what="a status without strangers")


def test_write_waits_for_a_stranger_and_both_changes_are_there(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """A write that comes meanwhile is applied as soon as the stranger lets go, within its deadline."""
    with Stranger(pond.target, tmp_path) as stranger:
        stranger.execute("INSERT INTO t VALUES (1)")
        write = Asked(lambda: client.execute("INSERT INTO t VALUES (2)"))
        waiting_for = wait_until(lambda: client.status("pond")["writer"]["waiting_for"], what="a writer that waits")
        assert not write.is_done()
        stranger.let_go()
    outcome = write.outcome()

    assert str(stranger.pid) in str(waiting_for)
    assert outcome.outcome == "committed"
    assert client.query("SELECT n FROM t ORDER BY n", at_least=outcome.version).rows == [[1], [2]]


def test_change_of_a_stranger_is_published_beside_a_write_that_fails(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """The stranger's rows are seen although our own write, which waited for it, was refused."""
    with Stranger(pond.target, tmp_path) as stranger:
        stranger.execute("INSERT INTO t VALUES (5)")
        write = Asked(lambda: client.execute("INSERT INTO t VALUES (5)"))
        wait_until(lambda: client.status("pond")["writer"]["waiting_for"], what="a writer that waits")
        stranger.let_go()
    error = write.outcome()

    assert isinstance(error, PondkeeperError)
    assert error.code == "statement_failed"
    published(client, 1)


@pytest.mark.fault
def test_killed_stranger_leaves_its_wal_and_its_rows_are_published(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """kill -9 of a program that had committed: what is in its WAL is recovered and published."""
    with Stranger(pond.target, tmp_path) as stranger:
        stranger.execute("INSERT INTO t VALUES (1), (2), (3)")
        stranger.kill()
    assert not is_alive(stranger.pid)

    published(client, 3)
    wait_until(lambda: not pond.database.wal.exists(), what="a checkpoint")
    outcome = client.execute("INSERT INTO t VALUES (4)")
    assert client.query(COUNT, at_least=outcome.version).scalar() == 4


@pytest.mark.fault
def test_stranger_that_hangs_keeps_nobody_from_reading(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """A stopped program keeps its lock: reads and status go on, and versions go on when it has ended."""
    with Stranger(pond.target, tmp_path) as stranger:
        os.kill(stranger.pid, signal.SIGSTOP)
        for _ in range(10):
            assert client.query(COUNT).scalar() == 0
            assert client.status("pond")["state"] == "ready"
        os.kill(stranger.pid, signal.SIGKILL)
    assert client.execute("INSERT INTO t VALUES (1)", timeout_s=20).outcome == "committed"

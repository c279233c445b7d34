"""A knock: somebody opens a file, and whoever watches hears it without touching the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pondkeeper.files.knocks import Knocks
from tests.support.keeper import program_environment

CONNECT = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"


def connect_from_outside(file: Path) -> str:
    """What another program sees that tries to open the database."""
    command = [sys.executable, "-c", CONNECT, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment()).stderr


def test_a_refused_connect_is_heard_and_our_own_work_is_not(tmp_path: Path) -> None:
    """DuckDB's writes and checkpoints in this process are silent; a connect that the lock refuses is a knock, once."""
    file = tmp_path / "door.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
        knocks = Knocks(file)
        for _ in range(3):
            connection.execute("INSERT INTO t SELECT range FROM range(200000)")
            connection.execute("CHECKPOINT")
        assert not knocks.heard()
        assert "lock" in connect_from_outside(file)
        assert knocks.heard()
        assert not knocks.heard()
        knocks.close()


def test_listening_never_drops_duckdbs_lock(tmp_path: Path) -> None:
    """A watch is no descriptor of the file: after it is closed the lock still holds (the lock trap)."""
    file = tmp_path / "door.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
        Knocks(file).close()
        assert "lock" in connect_from_outside(file)
    assert connect_from_outside(file) == ""  # positive control: nothing else refuses it


def test_a_kernel_without_watches_leaves_it_deaf_not_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no watch is to be had, nothing is heard and nothing fails."""
    monkeypatch.setattr("pondkeeper.files.knocks._libc.inotify_init1", lambda _: -1)
    knocks = Knocks(tmp_path)
    os.listdir(tmp_path)
    assert not knocks.heard()
    knocks.close()

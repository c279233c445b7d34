"""The lock trap: closing a second descriptor of an open database drops DuckDB's lock, and rows vanish without an error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.conftest import StartKeeper
from tests.support.keeper import program_environment, wait_until
from tests.support.opens import openers, tracer

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: script/test installs it")

HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("INSERT INTO t VALUES (1)")
connection.execute("CHECKPOINT")  # Why: DuckDB locks the WAL too while there is one, which would hide the loss.
if sys.argv[2] == "trap":
    open(sys.argv[1], "rb").close()
print("holding", flush=True)
input()
connection.execute("INSERT INTO t VALUES (2)")
connection.execute("CHECKPOINT")
connection.close()
"""
INTRUDE = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("INSERT INTO t SELECT 3 FROM range(1000)")
connection.close()
"""


def intrude_while_held(file: Path, how: str) -> subprocess.CompletedProcess[str]:
    """One process holds the database and writes; what happens to another that writes it too."""
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
    environment = program_environment()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holding\n"
        command = [sys.executable, "-c", INTRUDE, str(file)]
        intruder = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        holder.communicate(b"\n", timeout=30)
    assert holder.returncode == 0
    return intruder


def rows(file: Path) -> dict[int, int]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return dict(connection.execute("SELECT x, count(*) FROM t GROUP BY x").fetchall())


def test_a_second_writer_is_refused_as_long_as_nobody_triggers_the_trap(tmp_path: Path) -> None:
    """Without the trap DuckDB's lock holds: the intruder is refused, and nothing is lost."""
    intruder = intrude_while_held(tmp_path / "held.duckdb", "hold")
    assert "lock" in intruder.stderr
    assert rows(tmp_path / "held.duckdb") == {1: 1, 2: 1}


@pytest.mark.fault
def test_the_trap_loses_rows_without_an_error(tmp_path: Path) -> None:
    """Positive control: with the trap triggered both programs commit happily, and the rows of one are gone."""
    intruder = intrude_while_held(tmp_path / "held.duckdb", "trap")
    assert intruder.returncode == 0, intruder.stderr
    assert rows(tmp_path / "held.duckdb") == {1: 1, 2: 1}, "a thousand committed rows should have vanished"


@needs_strace
@pytest.mark.fault
def test_the_tracer_sees_the_trap(tmp_path: Path) -> None:
    """Positive control: the tracer names a program that closes a second descriptor, and not one that does not."""
    file = tmp_path / "traced.duckdb"
    duckdb.connect(str(file)).close()
    for how, expected in (("hold", 0), ("trap", 1)):
        log = tmp_path / f"{how}.strace"
        code = "import duckdb, sys; c = duckdb.connect(sys.argv[1])\nif sys.argv[2] == 'trap': open(sys.argv[1]).close()"
        # Without -D here, so that the trace is complete when the command ends.
        command = [part for part in tracer(log) if part != "-D"]
        subprocess.run([*command, sys.executable, "-c", code, str(file), how], check=True, env=program_environment())
        [process] = openers(log, file)
        assert process.wrote
        assert len(process.trapped) == expected


@needs_strace
def test_no_process_of_ours_triggers_the_trap(tmp_path: Path, start_keeper: StartKeeper) -> None:
    """Writes, publishes, snapshots, turns, a killed writer: who has the database open never closes a second descriptor."""
    file, log = tmp_path / "pond.duckdb", tmp_path / "keeper.strace"
    keeper = start_keeper(file, under=tracer(log))
    client = keeper.client()
    client.execute("CREATE TABLE t (x INTEGER)")
    for number in range(20):
        version = client.execute("INSERT INTO t VALUES (?)", [number]).version
    assert client.query("SELECT count(*) FROM t", at_least=version).scalar() == 20

    os.kill(keeper.writer_pid(), signal.SIGKILL)
    version = client.execute("INSERT INTO t SELECT range FROM range(200000)").version
    assert client.query("SELECT count(*) FROM t", at_least=version).scalar() == 200_020

    assert keeper.cli("run", "--", sys.executable, "-c", INTRUDE, str(file)).returncode == 0
    assert keeper.cli("check").returncode == 0
    assert keeper.local_client().take_snapshot()["version"] > version
    assert client.query("SELECT count(*) FROM t").scalar() == 201_020
    wait_until(lambda: not client.status()["writer"]["is_open"], what="the writer's end of work")
    assert keeper.stop() == 0

    processes = openers(log, file)
    names = {process.name for process in processes}
    assert any(name.startswith("pond-writer") for name in names), names
    assert any(name.startswith("pond-copier") for name in names), names
    assert {process.name[:11] for process in processes if process.wrote} == {"pond-writer"}
    assert sum(process.opened for process in processes if process.wrote) >= 3, "it should have been opened again and again"
    assert [line for process in processes if process.wrote for line in process.trapped] == []

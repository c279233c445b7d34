"""`pondkeeper run` beside a keeper: a program gets the file to itself in its turn, reads go on, its work is published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pondkeeper.client.client import Client
from tests.support.asking import Asked
from tests.support.keeper import KeeperProcess, command_line, program_environment, wait_until

COUNT = "SELECT count(*) FROM t"
PROGRAM = """
import os, sys, duckdb
connection = duckdb.connect(os.environ["PONDKEEPER_DATABASE"])
connection.execute("INSERT INTO t VALUES (100), (101)")
print(os.getpid(), flush=True)
sys.stdin.readline()
connection.execute("INSERT INTO t VALUES (102)")
print("written", flush=True)
sys.stdin.readline()
connection.close()
sys.exit(7)
"""


@contextmanager
def program(keeper: KeeperProcess, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program under `pondkeeper run`; it goes on with each line that it is sent, and prints its pid first."""
    script = folder / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen(
        command_line("run", "--home", str(keeper.home.root), "--", sys.executable, str(script)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_reads_go_on_while_a_program_writes(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """Readers stay on the last snapshot, status names the program, its exit code is ours, its rows are there after it."""
    with program(pond, tmp_path) as process:
        assert int(heard(process)) > 0
        assert [client.query(COUNT).scalar() for _ in range(5)] == [0] * 5
        holder = wait_until(lambda: client.status("pond")["lease"]["holder"], what="a holder")
        tell(process)
        assert heard(process) == "written"
        assert client.query(COUNT).scalar() == 0
        tell(process)
        _, errors = process.communicate(timeout=20)

    assert "program.py" in holder["who"] or "python" in holder["who"]
    assert process.returncode == 7, errors
    assert client.query(COUNT).scalar() == 3  # published before `run` ended


def test_writes_wait_for_a_program_and_the_program_for_writes(pond: KeeperProcess, client: Client, tmp_path: Path) -> None:
    """Turns are taken: a program that comes while the writer works waits for it, and writes that come then wait for that."""
    client.execute("INSERT INTO t VALUES (1)")  # the writer has the file open now
    with program(pond, tmp_path) as process:
        assert int(heard(process)) > 0
        write = Asked(lambda: client.execute("INSERT INTO t VALUES (2)"))
        wait_until(lambda: client.status("pond")["writer"]["waiting_for"], what="a writer that waits")
        tell(process)
        assert heard(process) == "written"
        assert not write.is_done()
        tell(process)
        outcome = write.outcome()
        process.communicate(timeout=20)

    assert outcome.outcome == "committed"
    numbers = client.query("SELECT n FROM t ORDER BY n", at_least=outcome.version).rows
    assert numbers == [[1], [2], [100], [101], [102]]


@pytest.mark.fault
@pytest.mark.parametrize("with_supervisor", [False, True])
def test_killed_program_frees_the_lease_and_what_it_committed_is_published(
    pond: KeeperProcess, client: Client, tmp_path: Path, with_supervisor: bool
) -> None:
    """kill -9 of the program, and of `pondkeeper run` with it: the next write gets its turn at once, nothing is lost."""
    with program(pond, tmp_path) as process:
        pid = int(heard(process))
        if with_supervisor:
            process.kill()
        os.kill(pid, signal.SIGKILL)
        outcome = client.execute("INSERT INTO t VALUES (1)", timeout_s=15)
        if not with_supervisor:
            process.communicate(timeout=20)
            assert process.returncode == 128 + signal.SIGKILL

    numbers = client.query("SELECT n FROM t ORDER BY n", at_least=outcome.version).rows
    assert numbers == [[1], [100], [101]]
    assert wait_until(lambda: (client.status("pond")["lease"]["holder"] or {}).get("who") in (None, "keeper"), what="a lease")

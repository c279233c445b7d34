"""`pondkeeper.write`: one's turn, a plain connection, and a file that is left whole, with a keeper and without one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

import pondkeeper
from pondkeeper.engine import plain
from pondkeeper.errors import DatabaseBusy, DatabaseNotFound, InvalidRequest, KeeperNotRunning, StatementFailed
from pondkeeper.files.locks import holders_of, is_flocked
from pondkeeper.files.paths import DatabasePaths, Home, default_home
from pondkeeper.writer.lease import waiting_count
from tests.support.keeper import KeeperProcess, program_environment, wait_until
from tests.support.programs import Program

STAY = """
import sys, pondkeeper
with pondkeeper.write(sys.argv[1], reason="a test") as connection:
    connection.execute("INSERT INTO t VALUES (1)")
    print("there", flush=True)
    sys.stdin.readline()
"""


def paths_of(file: Path) -> DatabasePaths:
    return Home(default_home(file)).database(file)


def rows(file: Path) -> list[int]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n").fetchall()]


def is_free(file: Path) -> bool:
    """Whether nobody holds the lease, waits for it, says so, or has the file open."""
    paths = paths_of(file)
    nobody = not is_flocked(paths.lease_lock) and not paths.lease_json.exists() and not list(paths.tickets.iterdir())
    return nobody and not [holder for holder in holders_of(file) if holder.kind == "posix"]


def test_the_block_has_the_file_to_itself_and_leaves_it_folded(alone: Path) -> None:
    """The lease is held with who and why; at the end it is free, the WAL is folded, and the rows are there."""
    with pondkeeper.write(alone, reason="nightly load") as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        said = json.loads(paths_of(alone).lease_json.read_text())
        assert isinstance(connection, duckdb.DuckDBPyConnection)
        assert paths_of(alone).wal.exists(), "the positive control: there is something to fold"

    assert (said["why"], said["pid"]) == ("nightly load", os.getpid())
    assert not paths_of(alone).wal.exists()
    assert is_free(alone)
    assert rows(alone) == [1]


def test_an_exception_keeps_what_was_committed_and_rolls_back_the_rest(alone: Path) -> None:
    """Each statement commits by itself unless one says BEGIN; the exception comes out as it was."""
    with pytest.raises(ZeroDivisionError), pondkeeper.write(alone) as connection:  # noqa: PT012  the block is the subject
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (2)")
        raise ZeroDivisionError

    assert rows(alone) == [1]
    assert is_free(alone)


def test_a_transaction_that_was_forgotten_is_an_error(alone: Path) -> None:
    """A block that ends with a transaction open has lost it, and is told so."""
    with pytest.raises(StatementFailed, match="rolled back"), pondkeeper.write(alone) as connection:  # noqa: PT012
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (2)")

    assert rows(alone) == []
    assert is_free(alone)


def test_cursors_are_closed_with_the_block(alone: Path) -> None:
    """A cursor with a transaction of its own is rolled back and closed; nothing keeps the file open."""
    with pondkeeper.write(alone) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (3)")
        connection.execute("INSERT INTO t VALUES (4)")

    assert is_free(alone)
    assert rows(alone) == [4]


def test_a_result_that_keeps_the_file_open_is_an_error(alone: Path) -> None:
    """A half-read Arrow stream lives on: the file is still open, and it is said instead of found out by others."""
    still_open = pytest.raises(DatabaseBusy, match="still open in this process")
    with still_open, pondkeeper.write(alone) as connection:
        stream = connection.sql("SELECT * FROM range(1000000)").to_arrow_reader(1000)
        stream.read_next_batch()
    assert not is_flocked(paths_of(alone).lease_lock)
    del stream

    assert is_free(alone)


def test_a_thread_that_would_wait_for_itself_is_told_so(alone: Path) -> None:
    """Two turns in one thread are a mistake; the first one goes on undisturbed."""
    with pondkeeper.write(alone) as connection:
        with pytest.raises(DatabaseBusy, match="in `write` already"), pondkeeper.write(alone):
            pass
        connection.execute("INSERT INTO t VALUES (1)")

    assert rows(alone) == [1]


def test_threads_take_turns(alone: Path) -> None:
    """Several threads of one process wait for each other as programs do."""
    inside = 0
    most = 0

    def add(number: int) -> None:
        nonlocal inside, most
        with pondkeeper.write(alone, wait_s=60) as connection:
            inside += 1
            most = max(most, inside)
            connection.execute("INSERT INTO t VALUES (?)", [number])
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=add, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert rows(alone) == [0, 1, 2, 3, 4]
    assert most == 1


@pytest.mark.parametrize("step", ["open_plain_database", "close_plain_database"])
def test_a_thread_waits_also_while_another_opens_or_closes(alone: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is open then, and it is that thread's turn: no reason to refuse."""
    there, go = threading.Event(), threading.Event()
    real = getattr(plain, step)

    def slowly(argument: Any) -> Any:
        if step == "close_plain_database":
            there.set()
            go.wait(30)
        made = real(argument)
        if step == "open_plain_database" and not there.is_set():
            there.set()
            go.wait(30)
        return made

    def add(number: int) -> None:
        with pondkeeper.write(alone, wait_s=60) as connection:
            connection.execute("INSERT INTO t VALUES (?)", [number])

    monkeypatch.setattr(plain, step, slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(add, 1)
        assert there.wait(30)
        second = threads.submit(add, 2)
        time.sleep(0.2)
        assert not second.done(), second.exception()
        go.set()
        first.result(60)
        second.result(60)
    assert rows(alone) == [1, 2]


def test_a_connection_of_ones_own_is_no_reason_to_wait_for_ever(alone: Path) -> None:
    """A plain `duckdb.connect` in the same process would share its instance, or be waited for in vain."""
    with duckdb.connect(str(alone)) as connection:
        began = time.monotonic()
        with pytest.raises(DatabaseBusy, match="This process has the database open already"), pondkeeper.write(alone):
            pass
        assert time.monotonic() - began < 30
        connection.execute("INSERT INTO t VALUES (1)")
    with pondkeeper.write(alone):
        pass
    assert rows(alone) == [1]


def test_who_does_not_get_a_turn_is_told_who_has_it(alone: Path) -> None:
    """As on the command line; `on_wait` is told meanwhile."""
    told: list[str] = []
    with Program(alone, "--reason", "nightly load").there() as program:
        with pytest.raises(DatabaseBusy, match="nightly load"), pondkeeper.write(alone, wait_s=0.3, on_wait=told.append):
            pass
        program.let_go()
    with pondkeeper.write(alone, wait_s=0):
        pass

    assert str(program.pid) in told[0]


@pytest.mark.fault
def test_a_killed_program_leaves_what_it_committed(alone: Path) -> None:
    """kill -9 inside the block: the lease is free at once, and the next opening recovers what was committed."""
    command = [sys.executable, "-c", STAY, str(alone)]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=program_environment())
    assert program.stdout is not None
    assert program.stdout.readline() == "there\n"
    program.send_signal(signal.SIGKILL)
    program.communicate()
    assert paths_of(alone).wal.exists(), "the positive control: it was killed before it folded"
    with pondkeeper.write(alone, wait_s=0) as connection:
        found = connection.execute("SELECT n FROM t").fetchall()

    assert found == [(1,)]
    assert not paths_of(alone).wal.exists()


def test_a_spawned_child_takes_a_turn_of_its_own(alone: Path) -> None:
    """A child process waits for the end of the block, as any program does."""
    child = multiprocessing.get_context("spawn").Process(target=_insert_three, args=(str(alone),))
    with pondkeeper.write(alone) as connection:
        child.start()
        wait_until(lambda: waiting_count(paths_of(alone)) == 1, what="its ticket", timeout_s=30)
        connection.execute("INSERT INTO t VALUES (1)")
    child.join(60)

    assert child.exitcode == 0
    child.close()
    assert rows(alone) == [1, 3]


@pytest.mark.fault
def test_a_forked_child_may_not_write_by_what_it_inherited(alone: Path) -> None:
    """Trap: DuckDB in a forked child is the parent's as it was at the fork, without its lock: it would undo the parent's
    commits. The child is refused, and keeps the lease from nobody."""
    told, tells = os.pipe()
    may_end, end = os.pipe()
    with pondkeeper.write(alone) as connection:
        pid = os.fork()
        if pid == 0:
            try:
                _insert_three(str(alone))
                os.write(tells, b"it wrote")
            except DatabaseBusy as busy:
                os.write(tells, busy.message.encode())
            os.read(may_end, 1)
            os._exit(0)
        said = os.read(told, 1000).decode()
        connection.execute("INSERT INTO t VALUES (1)")
    with pondkeeper.write(alone, wait_s=0) as connection:  # while the child still lives
        connection.execute("INSERT INTO t VALUES (2)")
    os.write(end, b".")
    os.waitpid(pid, 0)
    for descriptor in (told, tells, may_end, end):
        os.close(descriptor)

    assert "forked" in said
    assert rows(alone) == [1, 2]


@pytest.mark.fault
def test_the_parents_connection_is_of_no_use_in_a_forked_child(alone: Path) -> None:
    """What a child writes by it is an error there, and nothing of it is in the file; the parent notices nothing."""
    told, tells = os.pipe()
    with pondkeeper.write(alone) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        pid = os.fork()
        if pid == 0:
            try:
                connection.execute("INSERT INTO t VALUES (3)")
                os.write(tells, b"it wrote")
            except duckdb.Error as error:
                os.write(tells, type(error).__name__.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        said = os.read(told, 1000).decode()
        connection.execute("INSERT INTO t VALUES (2)")
    for descriptor in (told, tells):
        os.close(descriptor)

    assert said != "it wrote"
    assert rows(alone) == [1, 2]


def _insert_three(file: str) -> None:
    with pondkeeper.write(file, wait_s=60) as connection:
        connection.execute("INSERT INTO t VALUES (3)")


def test_a_database_by_file_or_name_or_made(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a name in a home, the only one of the working folder; a missing one only on demand."""
    (tmp_path / ".pondkeeper").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for turn in (pondkeeper.write(str(alone)), pondkeeper.write("alone", home=tmp_path), pondkeeper.write()):
        with turn as connection:
            connection.execute("INSERT INTO t VALUES (1)")
    assert rows(alone) == [1, 1, 1]

    with pytest.raises(DatabaseNotFound, match="alone"):
        pondkeeper.write("other")
    with pytest.raises(DatabaseNotFound):
        pondkeeper.write("other.duckdb")
    with pondkeeper.write("other.duckdb", create=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 5 AS n")
    assert rows(tmp_path / "other.duckdb") == [5]
    with pytest.raises(InvalidRequest, match="several"):
        pondkeeper.write()
    with pytest.raises(KeeperNotRunning):
        pondkeeper.write("pond", home=tmp_path / "elsewhere")


def test_what_was_written_is_published_by_the_keeper(kept: KeeperProcess) -> None:
    """The turn names the version; queries and `read` see it; the keeper's own writes go on after it."""
    turn = pondkeeper.write(kept.target, reason="load")
    with turn as connection:
        connection.execute("INSERT INTO t VALUES (1), (2)")
        holder = wait_until(lambda: kept.client().queue()["holder"], what="a holder that the keeper sees")
        assert kept.client().query("SELECT count(*) FROM t").scalar() == 0
    assert turn.version is not None
    answer = kept.client().query("SELECT count(*) FROM t")
    version = kept.client().execute("INSERT INTO t VALUES (3)").version

    assert holder["why"] == "load"
    assert (answer.scalar(), answer.version) == (2, turn.version)
    assert kept.client().query("SELECT sum(n)::BIGINT FROM t", at_least=version).scalar() == 6


def test_a_keeper_that_starts_later_publishes_it(alone: Path) -> None:
    """Without a keeper nothing is published, and nothing is lost: the next keeper notices."""
    turn = pondkeeper.write(alone)
    with turn as connection:
        connection.execute("INSERT INTO t VALUES (7)")
    with KeeperProcess(alone, "--readers", "1") as keeper:
        found = keeper.client().query("SELECT n FROM t").rows

    assert turn.version is None
    assert found == [[7]]

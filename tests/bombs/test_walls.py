"""The walls around readers, writer and stagers of a real keeper: what stands there, and who pays for a bomb in a write."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pondkeeper.workers.ceiling import Ceiling
from tests.support.asking import Asked, code_of
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import rss_bytes
from tests.support.sizes import size_bytes

pytestmark = pytest.mark.fault
MIB = 1 << 20
MEMORY_BYTES = 256 * MIB
CEILING = Ceiling(MEMORY_BYTES)
KEEPER_MAY_GROW_BYTES = 48 * MIB
SPILLS = "CREATE OR REPLACE TABLE spilled AS SELECT range AS n, md5(range::VARCHAR) || repeat('x', 200) AS filler FROM range(1500000) ORDER BY filler"
WRITE_BOMBS = {
    "repeat per row": "INSERT INTO t SELECT length(repeat('abc', 300000000 + i::INTEGER)) FROM range(8) AS r(i)",
    "a list of everything": "INSERT INTO t SELECT len(list(i)) FROM range(1000000000) AS r(i)",
    "range of 1e9": "CREATE TABLE bomb AS SELECT range(n) AS l FROM range(1000000000, 1000000001) AS r(n)",
    "one huge value": "UPDATE t SET n = length(repeat(repeat('x', 1000), 3000000 + n % 2))",
}


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    environment = {
        "PONDKEEPER_WRITER_MEMORY_LIMIT_BYTES": "256MiB",
        "PONDKEEPER_WRITER_THREADS": "2",
        "PONDKEEPER_WRITER_IDLE_CLOSE_S": "60",
    }
    target = tmp_path_factory.mktemp("walls") / "pond.duckdb"
    with KeeperProcess(target, "--readers", "2", "--memory-limit", "256MiB", environment=environment) as keeper:
        keeper.client().execute(["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (0)"])
        yield keeper


def data_limit_bytes(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max data size")]
    return int(line.split()[3])


@contextmanager
def highest_rss(pond: KeeperProcess, name: str) -> Iterator[list[int]]:
    """The highest resident memory of a child of that name in the block, as the one item of a list."""
    highest, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for pid in pond.children(name):
                try:
                    highest[0] = max(highest[0], rss_bytes(pid))
                except OSError:  # it has just ended
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield highest
    finally:
        stop.set()
        thread.join()


def test_readers_and_writer_have_the_kernels_wall(pond: KeeperProcess) -> None:
    """RLIMIT_DATA is what the ceiling says for each of them; the keeper itself has none."""
    pond.client().execute("INSERT INTO t VALUES (1)")
    for pid in [*pond.children("reader"), pond.writer_pid()]:
        assert data_limit_bytes(pid) == CEILING.rlimit_data_bytes
    assert "unlimited" in Path(f"/proc/{pond.pid}/limits").read_text().split("Max data size")[1].splitlines()[0]


@pytest.mark.parametrize("name", WRITE_BOMBS)
def test_a_bomb_in_a_write_costs_its_own_client_only(pond: KeeperProcess, name: str) -> None:
    """It ends in `out_of_memory`; other writes beside it are committed, the keeper does not grow, the next write passes."""
    client = pond.client(retry_for_s=0.0)
    version = client.execute("INSERT INTO t VALUES (0)").version
    before_bytes, before = rss_bytes(pond.pid), client.query("SELECT count(*) FROM t", at_least=version).scalar()
    writer = pond.writer_pid()
    with highest_rss(pond, "writer") as highest:
        bomb = Asked(lambda: client.execute(WRITE_BOMBS[name], timeout_s=18))
        others = [Asked(lambda n=n: pond.client(retry_for_s=0.0).execute("INSERT INTO t VALUES (?)", [n])) for n in range(12)]
        outcomes = [other.outcome(60) for other in others]
        assert code_of(bomb.outcome(90)) == "out_of_memory"
    assert [str(outcome) for outcome in outcomes if code_of(outcome) != "answered"] == []
    version = client.execute("INSERT INTO t VALUES (13)").version
    assert client.query("SELECT count(*) FROM t", at_least=version, timeout_s=20).scalar() == before + 13
    assert pond.writer_pid() != writer  # what its allocator still holds would be missing to the next write
    assert 0 < highest[0] < CEILING.rss_bytes
    assert rss_bytes(pond.pid) - before_bytes < KEEPER_MAY_GROW_BYTES


def test_what_fits_and_spills_passes_and_a_killed_writers_temp_files_go(pond: KeeperProcess) -> None:
    """The positive control of the walls is a write that spills; killed in the midst of it, nothing stays behind."""
    temp = pond.home.temp / "writer-pond"
    client = pond.client(retry_for_s=0.0)
    client.execute(SPILLS, timeout_s=60)
    slow = Asked(lambda: client.execute(SPILLS, timeout_s=60))
    spilled_bytes = wait_until(lambda: size_bytes(temp), timeout_s=30, what="temp files of the writer")
    assert spilled_bytes > 0
    victim = pond.writer_pid()
    os.kill(victim, signal.SIGKILL)
    # Why other files may be there: the successor runs the write again, once, and spills again.
    wait_until(lambda: pond.children("writer") not in ([], [victim]), timeout_s=30, what="a successor")
    assert code_of(slow.outcome(90)) == "answered"
    os.kill(pond.writer_pid(), signal.SIGKILL)
    wait_until(lambda: temp.exists() and not list(temp.iterdir()), what="an empty temp folder")


def test_temp_files_of_a_killed_reader_go(pond: KeeperProcess) -> None:
    """A reader spills, is killed at its deadline, and its folder goes with it."""
    sql = "SELECT count(*) FROM (SELECT range AS n, md5(range::VARCHAR) || repeat('x', 200) AS f FROM range(40000000) ORDER BY f LIMIT 30000000)"
    asked = Asked(lambda: pond.client(retry_for_s=0.0).query(sql, timeout_s=20))
    wait_until(lambda: size_bytes(pond.home.temp) > MIB, timeout_s=30, what="temp files of a reader")
    for pid in pond.children("reader"):
        os.kill(pid, signal.SIGKILL)
    assert code_of(asked.outcome(60)) in ("worker_died", "query_timed_out")
    wait_until(lambda: len(pond.children("reader")) == 2 and not size_bytes(pond.home.temp), timeout_s=30, what="order")
    wait_until(lambda: len(list(pond.home.temp.glob("reader-*"))) == 2, what="a folder for each reader and no other")

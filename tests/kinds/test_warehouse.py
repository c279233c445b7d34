"""The warehouse of a job: the same with a keeper and without one, and nothing twice or lost whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from pondkeeper.errors import (
    DatabaseBusy,
    DatabaseMissing,
    Forbidden,
    InvalidRequest,
    PondkeeperError,
    RunCancelled,
    SchemaDrifted,
    StatementFailed,
)
from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs import drift
from pondkeeper.kinds import patience, reach
from pondkeeper.kinds.steps import Append, Replace, Run, Truncate, Upsert
from pondkeeper.local.reading import read
from tests.conftest import StartKeeper
from tests.kinds.loading import Bench
from tests.support.keeper import KeeperProcess, program_environment, wait_until

MakeBench = Callable[..., Bench]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper that the tests of this module share; each loads under a job, and into a schema, of its own."""
    with KeeperProcess(tmp_path_factory.mktemp("served") / "pond.duckdb") as keeper:
        yield keeper


both_ways = pytest.mark.parametrize("bench", ["keeper", "alone"], indirect=True)


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A job on a database that a keeper serves, or (`alone`) on one that nobody does."""
    name = f"job{abs(hash(request.node.name)) % 10**9}"
    if getattr(request, "param", "keeper") == "keeper":
        paths = request.getfixturevalue("served").database
    else:
        file = tmp_path / "pond.duckdb"
        paths = Home(default_home(file)).database(file)
    made = Bench(paths, job=name)
    yield made
    made.warehouse.close()


def numbers(bench: Bench, begin: int, end: int) -> list[Path]:
    return bench.stage(f"SELECT i AS id FROM range({begin}, {end}) t(i)")


# What a job does; some of it without a keeper too


@both_ways
def test_a_job_loads_and_reads_what_it_loaded(bench: Bench) -> None:
    """Rows, state and version come together; the same identity again is the same load; the status hears of it."""
    warehouse, table = bench.warehouse, f"{bench.job}.orders"
    assert warehouse.state() is None
    loaded = warehouse.load([Replace(table, numbers(bench, 0, 10)), Run(f"DELETE FROM {table} WHERE id = 0", table=table)], identity="1", state={"to": 10})
    assert loaded.rows == {table: 11}
    assert loaded.held_s > 0
    assert warehouse.query(f"SELECT count(*) FROM {table}", at_least=loaded.version) == [(9,)]
    assert warehouse.state() == {"to": 10}
    again = warehouse.load([Append(table, numbers(bench, 0, 10)), Truncate(table)], identity="1", state={"to": 99})
    assert (again.rows, warehouse.state()) == ({table: 11}, {"to": 10})
    version = warehouse.execute(f"INSERT INTO {table} SELECT $id", {"id": 77})
    with closing(warehouse.read(version)) as connection:
        assert connection.execute(f"SELECT count(*), max(id) FROM {table}").fetchall() == [(10, 77)]
    assert warehouse.state() == {"to": 10}
    assert {"waiting", "released"} <= set(bench.watched.phases)
    assert bench.watched.held[0] == (loaded.held_s, loaded.version)


def test_a_refused_load_leaves_nothing(bench: Bench) -> None:
    """Neither rows nor state; and the next load of the same identity is applied, since the first was not."""
    warehouse, table = bench.warehouse, f"{bench.job}.t"
    warehouse.load([Replace(table, numbers(bench, 0, 1))], identity="1", state={"to": 1})
    with pytest.raises(StatementFailed):
        warehouse.load([Truncate(table), Append(table, bench.stage("SELECT 'x' AS id"))], identity="2", state={"to": 2})
    assert warehouse.state() == {"to": 1}
    version = warehouse.load([Append(table, numbers(bench, 1, 3))], identity="2", state={"to": 3}).version
    assert warehouse.query(f"SELECT sum(id)::INT FROM {table}", at_least=version) == [(3,)]
    assert bench.watched.phases[-1] == "released"


@both_ways
def test_what_a_run_has_loaded_can_be_read_when_it_is_done(bench: Bench) -> None:
    """Who was told that a run is done looks at its rows without a word of versions."""
    table = f"{bench.job}.t"
    for number in range(2):
        bench.warehouse.load([Append(table, numbers(bench, number, number + 1))], identity=str(number))
    bench.warehouse.close()
    with closing(read(bench.paths.file)) as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(2,)]


@both_ways
def test_a_program_has_its_turn(bench: Bench) -> None:
    """What a program wrote in its turn is published when the turn is over, and a turn in which nothing was written is none."""
    table = f"made_by_{bench.job}"
    with bench.warehouse.lease("dbt build", max_hold_s=60) as turn:
        with duckdb.connect(str(turn.file)) as connection:
            connection.execute(f"CREATE TABLE {table} AS SELECT 42 AS x")
        assert bench.watched.phases[-1] == "holding"
        with pytest.raises(DatabaseBusy, match="wait for itself"):
            bench.warehouse.execute("SELECT 1")
    [(held_s, version)] = bench.watched.held
    assert held_s > 0
    assert bench.warehouse.query(f"SELECT x FROM {table}", at_least=version) == [(42,)]
    with bench.warehouse.lease("nothing"):
        pass
    assert bench.watched.held[1][1] is None


def test_drift_waits_for_a_person(bench: Bench) -> None:
    """`ask` refuses, remembers what was asked, and lets just that through once it was accepted."""
    home, table = Home(bench.paths.home), f"{bench.job}.t"
    bench.warehouse.load([Replace(table, numbers(bench, 0, 1))], identity="1")
    wider = bench.stage("SELECT 1 AS id, 'x' AS new")
    with pytest.raises(SchemaDrifted):
        bench.warehouse.load([Append(table, wider, drift="ask")], identity="2")
    [question] = drift.asked(home, bench.job)
    assert (question.table, question.changes) == (table, ["column 'new' VARCHAR is new"])
    assert drift.accept(home, bench.job) == [question]
    assert drift.asked(home, bench.job) == []
    loaded = bench.warehouse.load([Append(table, wider, drift="ask")], identity="2")
    assert loaded.changes == [f"{table}: column 'new' VARCHAR is new"]
    with pytest.raises(InvalidRequest, match="asked about no change"):
        drift.accept(home, bench.job)


@both_ways
def test_a_run_that_is_to_end_gives_up_its_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is given up soon after, and was not applied; the status says for whom it waited. With its turn, it goes on."""
    monkeypatch.setattr(patience, "FLUSH_WAIT_S", 0.5)
    table = f"{bench.job}.t"
    files = numbers(bench, 0, 1)
    other = Bench(bench.paths, job=f"{bench.job}_other", run_id="20261121T031501Z-000000")
    with other.warehouse.lease("a long build"), ThreadPoolExecutor() as pool:
        loading = pool.submit(bench.warehouse.load, [Replace(table, files)], identity="1")
        leasing = pool.submit(take_a_turn, other)
        wait_until(lambda: any(wait["holder"] for wait in bench.watched.waits), what="the holder in the status")
        bench.watched.stopping.set()
        other.watched.stopping.set()
        for waiting in (loading, leasing):
            with pytest.raises(RunCancelled):
                waiting.result(timeout=60)
    assert any(f"job {bench.job}_other" in wait["holder"] and wait["why"] == "a long build" for wait in bench.watched.waits if wait["holder"])
    assert bench.watched.phases[-1] == "released"
    assert bench.warehouse.load([Replace(table, files)], identity="2").rows == {table: 1}  # flushing what succeeded


def take_a_turn(bench: Bench) -> None:
    with bench.warehouse.lease("another"):
        pytest.fail("two had their turn at the same time")


# With a keeper


def test_loads_of_many_jobs_come_in_line(served: KeeperProcess) -> None:
    """Eight jobs load at once while others read: all succeed, no lock error, and the file is held for a part of the time."""
    benches = [Bench(served.database, job=f"many{number}", run_id=f"20261121T031502Z-00000{number}") for number in range(8)]
    over = threading.Event()
    reads = 0

    def read() -> None:
        nonlocal reads
        while not over.is_set():
            served.client().query("SELECT 1")
            reads += 1

    def sync(bench: Bench) -> list[tuple[int, float]]:
        found = []
        for number in range(3):
            files = numbers(bench, 100 * number, 100 * (number + 1))
            loaded = bench.warehouse.load([Append("many.t", files)], identity=str(number), state={"at": number})
            found.append((loaded.version, loaded.held_s))
        return found

    benches[0].warehouse.execute("CREATE SCHEMA IF NOT EXISTS many")
    benches[0].warehouse.execute("CREATE TABLE IF NOT EXISTS many.t (id INTEGER)")
    began = time.monotonic()
    with ThreadPoolExecutor(9) as pool:
        reading = pool.submit(read)
        loaded = list(pool.map(sync, benches))
        over.set()
        reading.result(timeout=60)
    whole_s = time.monotonic() - began
    held = [held_s for each in loaded for _, held_s in each]
    print(f"the file was held for {max(held):.3f} s at the longest, {sum(held):.3f} s of {whole_s:.3f} s")
    newest = max(version for each in loaded for version, _ in each)
    assert benches[0].warehouse.query("SELECT count(*), count(DISTINCT id) FROM many.t", at_least=newest) == [(2400, 300)]
    assert sum(held) < whole_s
    assert reads > 0


def test_what_is_staged_elsewhere_is_refused(served: KeeperProcess, tmp_path: Path) -> None:
    """The keeper loads what runs of its home have staged, and no other file of the machine, however it is named."""
    bench = Bench(served.database, job="elsewhere")
    [good] = numbers(bench, 0, 1)
    outside = tmp_path / "outside.parquet"
    outside.write_bytes(good.read_bytes())
    beside = bench.staging.parent / "beside.parquet"
    beside.write_bytes(good.read_bytes())
    link, hard = bench.staging / "link.parquet", bench.staging / "hard.parquet"
    link.symlink_to(outside)
    os.link(served.target, hard)
    away = bench.staging / "away"
    away.symlink_to(tmp_path)
    for wrong in (outside, beside, link, hard, away / "outside.parquet", bench.staging / "missing.parquet", "/proc/self/environ"):
        with pytest.raises(InvalidRequest):
            bench.warehouse.load([Replace("elsewhere.t", [wrong])], identity="1")
    assert bench.warehouse.load([Replace("elsewhere.t", [good])], identity="1").rows == {"elsewhere.t": 1}
    wait_until(lambda: not any(served.database.staging.iterdir()), what="an empty staging folder")


def test_loads_come_over_the_control_socket_only(served: KeeperProcess) -> None:
    """Not even an administrator's key loads files of the machine over the network."""
    load = {"job": "shop", "identity": "1", "steps": []}
    with served.http() as http:
        answer = http.post("/v1/databases/pond/loads", json={"load": load})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, Forbidden.code)
    transport = httpx.HTTPTransport(uds=str(served.home.socket))
    with httpx.Client(transport=transport, base_url="http://pondkeeper") as socket:
        assert socket.post("/v1/databases/pond/loads", json={"load": load}).json()["outcome"] == "committed"
        assert socket.post("/v1/databases/pond/loads", json={"load": load | {"steps": [{}]}}).status_code == 400


# Whoever dies


@pytest.mark.fault
def test_kills_of_the_keeper_lose_and_double_nothing(start_keeper: StartKeeper, tmp_path: Path) -> None:
    """A stream of loads goes on over kill -9 of the keeper: each is there once. The control: without identities, more."""
    keeper = start_keeper()
    bench, rounds = Bench(keeper.database), 2
    done: list[int] = []

    def sync() -> None:
        number = 0
        while number < 6 or len(kills) < rounds:
            step = Append("t", numbers(bench, number * 10, number * 10 + 10))
            bench.warehouse.load([step], identity=str(number), state={"number": number})
            done.append(number)
            number += 1

    kills: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(sync)
        for _ in range(rounds):
            reached = len(done) + 2
            wait_until(lambda: len(done) >= reached or syncing.done(), what="two more loads")  # noqa: B023
            keeper.kill9()
            keeper.restart()
            kills.append(1)
        syncing.result(timeout=120)
    assert bench.warehouse.state() == {"number": len(done) - 1}
    version = bench.warehouse.execute("INSERT INTO t SELECT -1")
    counted = bench.warehouse.query("SELECT count(*) - 1, count(DISTINCT id) - 1, max(id) + 1 FROM t", at_least=version)
    assert counted == [(10 * len(done),) * 3]
    # Sent again, as if the answer had been lost with the keeper: once by its identity, and twice by another one.
    step = Append("t", numbers(bench, 0, 10))
    bench.warehouse.load([step], identity=str(len(done) - 1))
    version = bench.warehouse.load([step], identity="another").version
    assert bench.warehouse.query("SELECT count(*) - 1 FROM t", at_least=version) == [(10 * len(done) + 10,)]


@pytest.mark.fault
def test_without_a_next_keeper_a_run_takes_its_own_turn(start_keeper: StartKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that does not come back is waited for, for a while; what it had committed is not loaded again."""
    monkeypatch.setattr(reach, "KEEPER_BACK_S", 1.0)
    keeper = start_keeper()
    bench = Bench(keeper.database)
    files = numbers(bench, 0, 10)
    bench.warehouse.load([Append("t", files)], identity="1", state={"to": 10})
    keeper.kill9()
    assert bench.warehouse.load([Append("t", files)], identity="1").rows == {"t": 10}
    loaded = bench.warehouse.load([Append("t", numbers(bench, 10, 12))], identity="2", state={"to": 12})
    assert bench.warehouse.state() == {"to": 12}
    assert bench.warehouse.query("SELECT count(*) FROM t", at_least=loaded.version) == [(12,)]
    bench.warehouse.close()
    keeper.restart()
    again = keeper.client().query("SELECT count(*) FROM t", at_least=loaded.version)
    assert again.scalar() == 12


@pytest.mark.fault
def test_the_writer_may_die_in_the_middle(served: KeeperProcess) -> None:
    """kill -9 of the keeper's writer while it carries a load out: its successor does so, from the beginning, once."""
    bench = Bench(served.database, job="survivor")
    slow = Run("INSERT INTO survivor.t SELECT max(hash(i)) % 7 FROM range(400000000) t(i)", table="survivor.t")
    with ThreadPoolExecutor(1) as pool:
        step = Replace("survivor.t", numbers(bench, 0, 10), types={"id": "UBIGINT"})
        loading = pool.submit(bench.warehouse.load, [step, slow], identity="1", state={"at": 1})
        wait_until(lambda: "holding" in bench.watched.phases, what="the load's turn")
        os.kill(served.writer_pid(), signal.SIGKILL)
        assert not loading.done()
        loaded = loading.result(timeout=80)
    assert loaded.rows == {"survivor.t": 11}
    assert bench.warehouse.query("SELECT count(*) FROM survivor.t", at_least=loaded.version) == [(11,)]
    assert bench.warehouse.state() == {"at": 1}


LOADER = """
import sys, threading
from pathlib import Path
from tests.kinds.loading import Bench
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.kinds.steps import Append
bench = Bench(DatabasePaths(Path(sys.argv[1]), Path(sys.argv[2])))
number = (bench.warehouse.state() or {"number": -1})["number"] + 1
print(f"began {number}", flush=True)
while True:
    files = bench.stage(f"SELECT i AS id FROM range({number * 10}, {number * 10 + 10}) t(i)")
    bench.warehouse.load([Append("t", files)], identity=str(number), state={"number": number})
    print(f"loaded {number}", flush=True)
    number += 1
"""


@pytest.mark.fault
@pytest.mark.parametrize("way", ["keeper", "alone"])
def test_kills_of_the_run_lose_and_double_nothing(request: pytest.FixtureRequest, tmp_path: Path, way: str) -> None:
    """kill -9 of the process that loads, in the middle of it; the next attempt goes on from the state that was committed."""
    if way == "keeper":
        start: StartKeeper = request.getfixturevalue("start_keeper")
        paths = start().database
    else:
        file = tmp_path / "alone" / "pond.duckdb"
        paths = Home(default_home(file)).database(file)
    acknowledged = -1
    for _ in range(2 if way == "keeper" else 1):
        command = [sys.executable, "-c", LOADER, str(paths.file), str(paths.home)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=program_environment()) as loader:
            assert loader.stdout is not None
            lines = iter(loader.stdout)
            began = int(next(lines).split()[1])
            assert began - acknowledged in (1, 2)  # a load whose answer nobody heard may have been committed
            for line in lines:
                acknowledged = int(line.split()[1])
                if acknowledged >= began + 1:
                    break
            time.sleep(0.02)
            loader.send_signal(signal.SIGKILL)
    bench = Bench(paths)
    state: Any = bench.warehouse.state()
    assert state["number"] in (acknowledged, acknowledged + 1)
    rows = 10 * (state["number"] + 1)
    assert bench.warehouse.query("SELECT count(*), count(DISTINCT id), max(id) + 1 FROM t") == [(rows, rows, rows)]


def test_a_lost_database_is_not_made_anew(tmp_path: Path) -> None:
    """Where there are snapshots and no file, a load must not begin an empty one."""
    file = tmp_path / "pond.duckdb"
    bench = Bench(Home(default_home(file)).database(file))
    bench.warehouse.load([Replace("t", numbers(bench, 0, 1))], identity="1")
    bench.warehouse.close()
    file.unlink()
    with pytest.raises(DatabaseMissing):
        bench.warehouse.load([Append("t", numbers(bench, 0, 1))], identity="2")
    assert not file.exists()


def test_errors_are_ours(tmp_path: Path) -> None:
    """What a query or a path does wrong is told as anywhere else."""
    file = tmp_path / "pond.duckdb"
    bench = Bench(Home(default_home(file)).database(file))
    for wrong in (lambda: bench.warehouse.query("SELECT 1"), lambda: bench.warehouse.load([Upsert("t", ["/no/such/file"], ["id"])], identity="1")):
        with pytest.raises(PondkeeperError):
            wrong()
    assert bench.warehouse.state() is None

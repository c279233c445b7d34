"""Pipelines over a real keeper: order, outcomes, windows, and what happens when either side goes away."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import pondkeeper
from pondkeeper.client.pipeline import Pipeline
from pondkeeper.client.transport import short_socket_path
from pondkeeper.errors import (
    BodyTooLarge,
    DatabaseNotFound,
    IdempotencyConflict,
    InvalidRequest,
    KeeperNotRunning,
    OutcomeUnknown,
    PondkeeperError,
    StatementFailed,
    StatementNotAllowed,
    WriteTimedOut,
)
from pondkeeper.files.paths import Home
from pondkeeper.writer.wire import FrameReader, Hello, Kind, decode_goodbye, encoded, framed
from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess, wait_until

INSERT = "INSERT INTO log VALUES (?, ?)"
MAKE = "CREATE OR REPLACE TABLE log (client INTEGER, seq INTEGER PRIMARY KEY)"


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper on a new database. Its writes may take long: on a busy machine a second's work takes half a minute."""
    patient = {"PONDKEEPER_WRITER_TIMEOUT_S": "300", "PONDKEEPER_WRITER_WAIT_S": "300"}
    target = tmp_path_factory.mktemp("pipelined") / "pond.duckdb"
    with KeeperProcess(target, "--readers", "2", environment=patient) as keeper:
        yield keeper


@pytest.fixture
def table(pond: KeeperProcess) -> KeeperProcess:
    pond.client().execute(MAKE)
    return pond


def rows(keeper: KeeperProcess, query: str = "SELECT seq FROM log") -> list[Any]:
    version = keeper.client().execute("SELECT 1").version
    return [row[0] for row in keeper.client().query(query, at_least=version).rows]


def errors_of(futures: list[Future[Any]]) -> list[BaseException | None]:
    return [future.exception(timeout=60) for future in futures]


def test_thousands_of_writes_in_their_order(table: KeeperProcess) -> None:
    """Ten thousand calls, ten thousand outcomes, and the rows lie in the order of the calls."""
    count = 10_000
    with pondkeeper.Pipeline(table.home.root) as pipe:
        futures = [pipe.execute(INSERT, [1, number]) for number in range(count)]
        outcomes = [future.result(timeout=60) for future in futures]

    assert {(outcome.outcome, outcome.rows_changed) for outcome in outcomes} == {("committed", 1)}
    versions = [outcome.version for outcome in outcomes]
    assert versions == sorted(versions)
    assert table.client().query("SELECT count(*) FROM log", at_least=versions[-1]).scalar() == count
    assert rows(table) == list(range(count))


def test_each_write_has_an_outcome_of_its_own(table: KeeperProcess) -> None:
    """Duplicates, lists, changes, nonsense and what is not allowed, in one burst: each as it would be alone."""
    with Pipeline(table.target) as pipe:
        futures = [
            pipe.execute(INSERT, [1, 1]),
            pipe.execute(INSERT, [1, 1]),
            pipe.execute([("INSERT INTO log VALUES (2, ?)", [2]), "UPDATE log SET client = client + 1"]),
            pipe.execute(["INSERT INTO log VALUES (3, 3)", "INSERT INTO log VALUES (3, 1)"]),
            pipe.execute("COPY log TO 'x.csv'"),
        ]
        assert pipe.flush(60)  # Why here: of twelve turns one is for the background first.
        futures.append(
            pipe.execute("UPDATE log SET client = $c WHERE seq = $s", {"c": 7, "s": 2}, priority="background")
        )
        assert pipe.flush(60)
        assert all(future.done() for future in futures)
    good, duplicate, many, undone, forbidden, named = errors_of(futures)

    assert (good, many, named) == (None, None, None)
    assert isinstance(duplicate, StatementFailed)
    assert isinstance(undone, StatementFailed)
    assert isinstance(forbidden, StatementNotAllowed)
    assert futures[2].result().rows_changed == [1, 2]
    assert rows(table, "SELECT client FROM log ORDER BY seq") == [2, 7]


def test_many_threads_share_a_pipeline_each_in_its_order(table: KeeperProcess) -> None:
    """Four threads, some of them waiting for each outcome: nothing is lost, and each thread's rows lie in its order."""
    with Pipeline(table.home.root) as pipe:

        def write(number: int) -> None:
            for seq in range(200):
                future = pipe.execute(INSERT, [number, number * 1000 + seq])
                if number % 2:
                    future.result(timeout=60)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for number in range(4):
        assert rows(table, f"SELECT seq FROM log WHERE client = {number}") == [number * 1000 + seq for seq in range(200)]


def test_a_callback_may_write(table: KeeperProcess) -> None:
    """A chain of writes, each made by the one before: the thread that tells of outcomes never waits for itself."""
    ended = threading.Event()
    with Pipeline(table.home.root) as pipe:

        def go_on(future: Future[Any]) -> None:
            seq = future.result().rows_changed + len(made)
            if seq < 50:
                made.append(seq)
                pipe.execute(INSERT, [1, seq]).add_done_callback(go_on)
            else:
                ended.set()

        made: list[int] = []
        pipe.execute(INSERT, [1, 0]).add_done_callback(go_on)
        assert ended.wait(60)
    assert len(rows(table)) == len(made) + 1


def test_keys_are_those_of_every_other_door(table: KeeperProcess) -> None:
    """A key that was used over HTTP is known here, and the other way round."""
    table.client().execute(INSERT, [1, 1], idempotency_key="one")
    with Pipeline(table.home.root) as pipe:
        again = pipe.execute(INSERT, [1, 1], idempotency_key="one")
        other = pipe.execute(INSERT, [1, 2], idempotency_key="one")
        new = pipe.execute(INSERT, [1, 3], idempotency_key="three")
    assert again.result().rows_changed == 1
    assert isinstance(other.exception(), IdempotencyConflict)
    assert new.result().rows_changed == table.client().execute(INSERT, [1, 3], idempotency_key="three").rows_changed
    assert rows(table) == [1, 3]


def test_what_cannot_be_sent_is_refused_at_once(table: KeeperProcess) -> None:
    """A key that is none, a write beyond the bound, a value that JSON cannot carry, a closed pipeline."""
    pipe = Pipeline(table.home.root)
    with pipe:
        with pytest.raises(InvalidRequest):
            pipe.execute("SELECT 1", idempotency_key="x" * 256)
        with pytest.raises(BodyTooLarge):
            pipe.execute("SELECT ?", ["x" * 17_000_000])
        with pytest.raises(TypeError):
            pipe.execute("SELECT ?", [object()])
        with pytest.raises(ValueError, match="parameters belong"):
            pipe.execute(["SELECT 1"], [1])
        large = pipe.execute("INSERT INTO log SELECT length(?), 1", ["x" * 10_000_000])
    with pytest.raises(InvalidRequest):
        pipe.execute("SELECT 1")
    assert large.result().rows_changed == 1
    assert rows(table, "SELECT client FROM log") == [10_000_000]


def test_where_there_is_no_keeper_or_no_such_database(tmp_path: Path, pond: KeeperProcess) -> None:
    """Both are said when the pipeline is opened."""
    with pytest.raises(KeeperNotRunning):
        Pipeline(tmp_path)
    with pytest.raises(DatabaseNotFound):
        Pipeline(pond.home.root, database="another")


def test_the_socket_is_its_owners(pond: KeeperProcess) -> None:
    """0600, as the control socket."""
    assert stat.S_IMODE(Home(pond.home.root).pipeline_socket.stat().st_mode) == 0o600


class Wire:
    """A bare connection, for what our client never does."""

    def __init__(self, keeper: KeeperProcess) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        with short_socket_path(keeper.home.pipeline_socket) as path:
            self.socket.connect(path)
        self.frames: list[tuple[Kind, bytes]] = []
        self._reader = FrameReader(10**9)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self) -> Wire:
        self.socket.sendall(framed(Kind.HELLO, encoded(Hello(1))))
        assert self.next()[0] is Kind.HELLO
        return self

    def write(self, *writes: list[Any]) -> None:
        self.socket.sendall(framed(Kind.WRITES, encoded(writes)))

    def next(self) -> tuple[Kind, bytes]:
        while not self.frames:
            data = self.socket.recv(65536)
            assert data, "the keeper has closed the connection"
            self.frames += self._reader.feed(data)
        return self.frames.pop(0)

    def is_closed(self) -> bool:
        while data := self.socket.recv(65536):
            self.frames += self._reader.feed(data)
        return True


def seq(number: int, sql: str = INSERT, values: list[Any] | None = None, **more: Any) -> list[Any]:
    return [number, [[sql, values]], more.get("key"), more.get("timeout_s"), "interactive"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        framed(Kind.HELLO, b"{}"),
        framed(Kind.HELLO, b'{"protocol":2}'),
        framed(Kind.WRITES, b"[]"),
        framed(Kind.GOODBYE, b"{}"),
        framed(Kind.HELLO, b'{"protocol":1}') * 2,
        framed(Kind.HELLO, b'{"protocol":1}') + framed(Kind.WRITES, b"[]"),
        framed(Kind.HELLO, b'{"protocol":1}') + framed(Kind.WRITES, b'[[1,[["SELECT 1",null]]],[1,[["SELECT 1",null]]]]'),
        framed(Kind.HELLO, b'{"protocol":1}') + framed(Kind.WRITES, b'[[0,[["SELECT 1",null]]]]'),
        framed(Kind.HELLO, b'{"protocol":1}') + framed(Kind.WRITES, b'[[1,[["SELECT 1",null]],null,-1]]'),
        framed(Kind.HELLO, b'{"protocol":1}') + framed(Kind.WRITES, b'[[1,[["\xff",null]]]]'),
        framed(Kind.HELLO, b'{"protocol":1}') + framed(Kind.WRITES, b"[" * 100_000),
        framed(Kind.HELLO, b'{"protocol":1}') + b"\x02\xff\xff\xff\xff",
    ],
)
def test_what_is_no_pipeline_is_told_so_and_closed(sent: bytes, pond: KeeperProcess) -> None:
    """A clear reason, the end of that connection, and the keeper goes on."""
    with Wire(pond) as wire:
        wire.socket.sendall(sent)
        assert wire.is_closed()
        kind, body = wire.frames[-1]
        assert kind is Kind.GOODBYE
        assert decode_goodbye(body)["code"] == "invalid_request"
    with Pipeline(pond.home.root) as pipe:
        assert pipe.execute("SELECT 1").result(timeout=60).outcome == "committed"


def test_a_client_that_takes_no_answers_is_not_read_from(table: KeeperProcess) -> None:
    """Back-pressure: writes of who never reads answers stop being taken, others are served, and it costs no memory."""
    with Wire(table).hello() as deaf:
        deaf.socket.settimeout(2)
        number = send_until_stuck(deaf, f"SELECT error('{'x' * 20_000}')")
        assert number < 20_000
        with Pipeline(table.home.root) as pipe:
            assert pipe.execute(INSERT, [1, 1]).result(timeout=60).rows_changed == 1


def send_until_stuck(wire: Wire, sql: str) -> int:
    """Send writes until the keeper takes no more; how many."""
    number = 0
    try:
        while number < 20_000:
            wire.write(*[seq(number := number + 1, sql) for _ in range(20)])
    except TimeoutError:
        pass
    return number


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_what_waits_is_dropped_with_its_client_and_what_has_begun_goes_on(table: KeeperProcess) -> None:
    """A client that dies in mid-stream: its running write is committed, those behind it never begin."""
    slow = "INSERT INTO log SELECT 1, (SELECT count(*) FROM range(150000) a, range(3000) b WHERE a.range + b.range > 0) % 2"
    with Wire(table).hello() as wire:
        wire.write(seq(1, slow))
        wait_until(lambda: states(table) == ["running"], what="the first write to begin")
        wire.write(*(seq(number, INSERT, [2, number]) for number in range(2, 50)))
        wait_until(lambda: len(states(table)) == 49, what="the others to wait")
    wait_until(lambda: states(table) == [], timeout_s=250, what="an empty queue")

    assert rows(table, "SELECT count(*) FROM log WHERE client = 1") == [1]
    assert rows(table, "SELECT count(*) FROM log WHERE client = 2") == [0]


def states(keeper: KeeperProcess) -> list[str]:
    return [entry["state"] for entry in keeper.client().queue()["writes"]]


def test_pipelined_writes_are_seen_counted_and_cancelled(table: KeeperProcess) -> None:
    """They stand in the queue and in the list of what runs, can be cancelled by id, and are in the metrics."""
    endless = "INSERT INTO log SELECT 1, max(a.range + b.range) FROM range(10000000) a, range(10000000) b"
    with Pipeline(table.home.root) as pipe:
        running = pipe.execute(endless)
        wait_until(lambda: states(table) == ["running"], what="the write to begin")
        waiting = pipe.execute(INSERT, [1, 1])
        wait_until(lambda: len(states(table)) == 2, what="the second one to wait")
        entries = table.client().queries()
        assert [entry["sql"][:20] for entry in entries] == [endless[:20], INSERT[:20]]
        assert entries[0]["client"] == f"pid {os.getpid()}"
        table.client().cancel(entries[0]["id"])
        assert isinstance(running.exception(timeout=60), PondkeeperError)
        assert waiting.result(timeout=60).rows_changed == 1
    with table.http() as http:
        assert 'pondkeeper_writes_total{outcome="query_cancelled"}' in http.get("/metrics").text
        # Why a wait: the keeper hears a moment later that a pipeline was closed, also of those of the test before.
        wait_until(lambda: "pondkeeper_pipelines 0.0" in http.get("/metrics").text, what="the end of all pipelines")


def test_a_deadline_of_its_own(table: KeeperProcess) -> None:
    """A write that runs for longer than it may is stopped, and says so; the next one is none the worse."""
    endless = "INSERT INTO log SELECT 1, max(a.range + b.range) FROM range(10000000) a, range(10000000) b"
    with Pipeline(table.home.root) as pipe:
        late = pipe.execute(endless, timeout_s=0.3)
        good = pipe.execute(INSERT, [1, 1])
        assert isinstance(late.exception(timeout=60), WriteTimedOut)
        assert good.result(timeout=60).rows_changed == 1


@pytest.mark.fault
def test_a_stopping_keeper_answers_what_it_has_taken(start_keeper: StartKeeper) -> None:
    """SIGTERM in mid-stream: without retries each write is committed, refused, or unknown, and the table agrees."""
    keeper = start_keeper()
    keeper.client().execute(MAKE)
    pipe = Pipeline(keeper.home.root, retries=0)
    futures: list[Future[Any]] = []
    threading.Timer(0.3, keeper.terminate).start()
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at and not (futures and futures[-1].done() and futures[-1].exception()):
        futures += [pipe.execute(INSERT, [1, len(futures) + number]) for number in range(20)]
        futures[-1].exception(timeout=60)
    pipe.close()
    assert keeper.process.wait(60) == 0
    keeper.restart()
    found = set(rows(keeper))

    committed = {number for number, future in enumerate(futures) if future.exception() is None}
    unknown = {number for number, future in enumerate(futures) if isinstance(future.exception(), OutcomeUnknown)}
    assert committed <= found <= committed | unknown
    assert committed


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_restart_of_the_keeper_costs_no_write_and_doubles_none(start_keeper: StartKeeper) -> None:
    """`kill -9` of the keeper in a stream of pipelined writes, again and again: each applied once, none lost."""
    keeper = start_keeper()
    keeper.client().execute("CREATE TABLE log (client INTEGER, seq INTEGER)")
    stop, futures = threading.Event(), list[Future[Any]]()

    def write() -> None:
        with Pipeline(keeper.home.root, retry_for_s=60) as pipe:
            while not stop.is_set():
                futures.append(pipe.execute(INSERT, [1, len(futures)]))
                if len(futures) % 500 == 0:
                    futures[-1].exception(timeout=60)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(3):
            goal = len(futures) + 2000
            wait_until(lambda goal=goal: len(futures) > goal, timeout_s=60, what="more writes")
            os.kill(keeper.pid, signal.SIGKILL)
            keeper.process.wait()
            keeper.restart()
    finally:
        stop.set()
        thread.join()
    version = keeper.client().execute("SELECT 1").version
    found = keeper.client().query("SELECT seq FROM log ORDER BY seq", at_least=version).rows

    assert [error for error in errors_of(futures) if error] == []
    assert [row[0] for row in found] == list(range(len(futures)))

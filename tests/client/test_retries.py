"""Writes that repeat themselves: with the same key, within their bounds, and each applied once."""

# ruff: noqa: SIM117  a server, then what is asked of it: nested blocks read better than one line of three

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pondkeeper.client import Client
from pondkeeper.client.keys import WriteKeys
from pondkeeper.errors import DatabaseBusy, KeeperNotRunning, OutcomeUnknown, QueueFull, StatementFailed, WriteTimedOut
from tests.conftest import StartKeeper
from tests.support.fake_keeper import Reply, answer, fake_keeper, problem
from tests.support.keeper import free_port, wait_until

Connect = Callable[..., Client]
COMMITTED = answer({"outcome": "committed", "version": 3, "rows_changed": 1})
CUT = Reply(body=b"{}" * 100, stop_after=1)
INSERT = "INSERT INTO t VALUES (1)"


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients that are closed in the end."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(Client(url, **options))


def keys_of(requests: list[Any]) -> list[str | None]:
    return [request.headers.get("Idempotency-Key") for request in requests]


@pytest.mark.parametrize(
    "trouble",
    [
        CUT,
        problem("outcome_unknown", 502),
        problem("worker_died", 502),
        problem("keeper_stopping", 503),
        problem("queue_full", 503, retry_after="0.01"),
        Reply(502, b"<html>Bad Gateway</html>"),
        Reply(200, b'{"outcome": "commi'),
    ],
    ids=["cut", "unknown", "died", "stopping", "full", "proxy", "torn"],
)
def test_a_write_is_repeated_with_one_key(trouble: Reply, connect: Connect) -> None:
    """Whatever leaves it open what became of it: sent again, under the same key, until there is an outcome."""
    replies = iter([trouble, trouble, COMMITTED])
    with fake_keeper(lambda _: next(replies)) as keeper:
        assert connect(keeper.url).execute(INSERT).version == 3

    keys = keys_of(keeper.requests)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


def test_each_write_has_a_key_of_its_own(connect: Connect) -> None:
    """Two equal writes are two writes."""
    with fake_keeper(lambda _: COMMITTED) as keeper:
        client = connect(keeper.url)
        client.execute(INSERT)
        client.execute(INSERT)
        client.execute(INSERT, idempotency_key="mine")

    first, second, third = keys_of(keeper.requests)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize("options", [{"retries": 0}, {"retry_for_s": 0}])
def test_without_retries_there_is_no_key_and_one_try(options: dict[str, Any], connect: Connect) -> None:
    """Switched off: nothing is sent twice, not even to a keeper that says it is busy."""
    replies = iter([CUT, problem("queue_full", 503, retry_after="0.01")])
    with fake_keeper(lambda _: next(replies)) as keeper:
        client = connect(keeper.url, **options)
        with pytest.raises(OutcomeUnknown):
            client.execute(INSERT)
        with pytest.raises(QueueFull):
            client.execute(INSERT)

    assert keys_of(keeper.requests) == [None, None]


def test_who_says_how_long_to_wait_is_told_when_that_is_over(connect: Connect) -> None:
    """A busy database is an answer then; without a `wait_s` it is asked again for a while."""
    busy = problem("database_busy", 503, retry_after="0.01")
    with fake_keeper(lambda _: busy) as keeper:
        with pytest.raises(DatabaseBusy):
            connect(keeper.url).execute(INSERT, wait_s=0.5)
    assert len(keeper.requests) == 1

    replies = iter([busy, COMMITTED])
    with fake_keeper(lambda _: next(replies)) as keeper:
        connect(keeper.url).execute(INSERT)
    assert len(keeper.requests) == 2


def test_retries_are_counted(connect: Connect) -> None:
    """`retries` is the number of repetitions."""
    with fake_keeper(lambda _: CUT) as keeper:
        with pytest.raises(OutcomeUnknown):
            connect(keeper.url, retries=2).execute(INSERT)

    assert len(keeper.requests) == 3


def test_a_verdict_after_a_lost_answer_is_the_verdict(connect: Connect) -> None:
    """The keeper looks for the key before it refuses: what it refuses was not applied before."""
    replies = iter([CUT, problem("statement_failed", 422)])
    with fake_keeper(lambda _: next(replies)) as keeper:
        with pytest.raises(StatementFailed):
            connect(keeper.url).execute(INSERT)


def test_a_deadline_after_a_lost_answer_leaves_it_unknown(connect: Connect) -> None:
    """A repetition that never had its turn says nothing of the first try."""
    replies = iter([CUT, problem("write_timed_out", 408)])
    with fake_keeper(lambda _: next(replies)) as keeper:
        with pytest.raises(OutcomeUnknown):
            connect(keeper.url).execute(INSERT)
    with fake_keeper(lambda _: problem("write_timed_out", 408)) as keeper:  # the positive control
        with pytest.raises(WriteTimedOut):
            connect(keeper.url).execute(INSERT)


def test_no_keeper_at_all_is_waited_for_within_the_bound(connect: Connect) -> None:
    """Nobody listens: tried again for a while, and then said as it is."""
    with pytest.raises(KeeperNotRunning):
        connect(f"http://127.0.0.1:{free_port()}", retry_for_s=0.3).execute(INSERT)


def test_keys_differ_after_a_fork() -> None:
    """A child that goes on with its parent's client must not go on with its parent's numbers."""
    keys = WriteKeys()
    before = keys.new()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, keys.new().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reading, 1000).decode(), keys.new()
    os.close(reading)
    os.close(writing)

    assert len({before, theirs, ours}) == 3
    assert theirs.split("-")[2] != ours.split("-")[2]


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_restart_of_the_keeper_costs_no_write_and_doubles_none(start_keeper: StartKeeper) -> None:
    """`kill -9` of the keeper in a stream of writes, again and again, on one port: every write is applied once."""
    keeper = start_keeper()
    keeper.client().execute("CREATE TABLE log (client INTEGER, seq INTEGER)")
    key, url = keeper.key, keeper.url
    stop, done, errors = threading.Event(), [0, 0, 0], list[BaseException]()

    def write(number: int) -> None:
        with Client(url, key, retry_for_s=60) as client:
            while not stop.is_set() and not errors:
                try:
                    client.execute("INSERT INTO log VALUES (?, ?)", [number, done[number]])
                except Exception as error:
                    errors.append(error)
                    return
                done[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(done))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            goal = [count + 20 for count in done]
            wait_until(lambda goal=goal: errors or all(map(int.__ge__, done, goal)), timeout_s=60, what="writes of everybody")
            keeper.kill9()
            keeper.restart()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    version = keeper.client().execute("SELECT 1").version
    found = keeper.client().query("SELECT client, seq FROM log ORDER BY ALL", at_least=version).rows

    assert errors == []
    assert found == [[number, seq] for number in range(len(done)) for seq in range(done[number])]
    assert min(done) >= 60

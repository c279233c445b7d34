"""The order of what waits: fair between priorities, visible, and honest to those who waited in vain."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pondkeeper.errors import DatabaseBusy, PondkeeperError, WriteTimedOut
from pondkeeper.writer.order import TURNS, Order, Priority
from pondkeeper.writer.write import Demand, Write
from tests.conftest import StartKeeper
from tests.support.asking import Asked, SlowClient, code_of
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.programs import Program

SLOW = "INSERT INTO log SELECT 0 FROM range(3000000) a, range(30000) b HAVING sum(a.range * b.range) > 0"


def write(name: str, priority: Priority) -> Write:
    loop = asyncio.new_event_loop()
    loop.close()
    return Write(Demand(name, [("SELECT 1", None)], 1.0, priority=priority), 0.0, asyncio.Future(loop=loop))


@given(some.lists(some.sampled_from([*Priority, None, "back"]), max_size=80))
def test_order_is_kept_within_a_priority_and_nobody_is_passed_over_for_long(steps: list[Priority | str | None]) -> None:
    """Random arrivals and turns: FIFO in each lane, as listed, and whoever is first of a lane waits a round at most."""
    order, waiting, passed = Order(), {priority: list[Write]() for priority in Priority}, dict.fromkeys(Priority, 0)
    for number, step in enumerate(steps):
        if isinstance(step, Priority):
            new = write(str(number), step)
            order.append(new)
            waiting[step].append(new)
        elif len(order):
            listed, first = list(order), order.first()
            taken = order.pop()
            assert taken is first is listed[0]
            assert list(order) == listed[1:]
            assert taken is waiting[taken.priority][0], "first come, first served"
            if step == "back":
                order.put_back(taken)
                assert order.first() is taken
                order.pop()
            waiting[taken.priority].pop(0)
            passed = {each: 0 if each is taken.priority or not waiting[each] else passed[each] + 1 for each in Priority}
            assert max(passed.values()) < len(TURNS), "starved"
    assert len(order) == sum(map(len, waiting.values()))


def test_interactive_writes_come_before_a_heap_of_background_ones() -> None:
    """Three interactive writes behind a hundred in the background have their turns among the first six."""
    order = Order()
    for number in range(100):
        order.append(write(f"b{number}", Priority.BACKGROUND))
    late = [write(f"i{number}", Priority.INTERACTIVE) for number in range(3)]
    for each in late:
        order.append(each)
    assert order.before(late[2]) < 6
    order.remove(late[0])
    assert late[0] not in order


@pytest.fixture
def busy(pond: KeeperProcess) -> tuple[KeeperProcess, Asked]:
    """A keeper whose writer runs a statement that takes long; nothing else is in its queue, and `log` is empty."""
    wait_until(lambda: pond.client().queue()["writes"] == [], what="an empty queue")
    pond.client().execute("CREATE OR REPLACE TABLE log (n INTEGER)")
    client = pond.client(retry_for_s=0.0)
    slow = Asked(lambda: client.execute(SLOW, timeout_s=20))
    wait_until(lambda: [each["state"] for each in pond.client().queue()["writes"]] == ["running"], what="it runs")
    return pond, slow


def insert(keeper: KeeperProcess, number: int, **options: object) -> Asked:
    client = keeper.client(retry_for_s=0.0)
    before = len(keeper.client().queue()["writes"])
    asked = Asked(lambda: client.execute("INSERT INTO log VALUES (?)", [number], **options))
    wait_until(lambda: len(keeper.client().queue()["writes"]) > before or asked.is_done(), what="it is in the queue")
    return asked


def test_the_queue_is_seen_in_its_order_and_by_priority(busy: tuple[KeeperProcess, Asked]) -> None:
    """Over HTTP and on the command line: who runs, who waits, whose priority; a reader sees no foreign statement."""
    keeper, slow = busy
    asked = [insert(keeper, 1, priority="background"), insert(keeper, 2), insert(keeper, 3, idempotency_key="three")]
    line = keeper.client().queue()
    shown = keeper.cli("queue")
    reader = keeper.client(keeper.client().create_key("reader of the queue", "reader")["token"]).queue()
    keeper.client().cancel(line["writes"][0]["id"])

    assert [each["state"] for each in line["writes"]] == ["running", "waiting", "waiting", "waiting"]
    seen = [_number(each) for each in line["writes"][1:]]
    # Why not always last: one of twelve turns is for the background, and which comes next depends on those before.
    assert [number for number in seen if number != 1] == [2, 3]
    assert line["holder"]["who"] == "keeper"
    assert shown.returncode == 0
    assert "4 writes in the queue" in shown.stderr
    assert [each["sql"] for each in reader["writes"]] == [None] * 4
    assert code_of(slow.outcome()) == "query_cancelled"
    outcomes = [each.outcome() for each in asked]
    rows = keeper.client().query("FROM log", at_least=max(each.version for each in outcomes)).rows
    assert rows == [[number] for number in seen]


def _number(write: dict[str, Any]) -> int:
    """Which of the three it is, by what the queue shows of it."""
    if write["priority"] == "background":
        return 1
    return 3 if write["idempotency_key"] == "three" else 2


def test_who_waits_in_vain_is_told_how_many_were_before(busy: tuple[KeeperProcess, Asked]) -> None:
    """A deadline that passes in the queue names what it waited for: the writes before it."""
    keeper, slow = busy
    waiting = [insert(keeper, 1), insert(keeper, 2, wait_s=0.3)]
    late = waiting[1].outcome()

    assert isinstance(late, WriteTimedOut)
    assert late.details["writes_before"] == 2
    keeper.client().cancel(keeper.client().queue()["writes"][0]["id"])
    assert [code_of(each.outcome()) for each in (slow, waiting[0])] == ["query_cancelled", "answered"]


def test_who_waits_for_a_lease_in_vain_is_told_by_whom_it_is_held(pond: KeeperProcess) -> None:
    """The error names the holder, its reason, since when it has the lease, and how many wait before."""
    keeper = pond
    keeper.client().execute("CREATE OR REPLACE TABLE log (n INTEGER)")
    with Program(keeper.target, "--reason", "nightly load").there() as holder:
        first = insert(keeper, 1)
        wait_until(lambda: keeper.client().status()["writer"]["waiting_for"], what="a writer that waits")
        late: PondkeeperError = insert(keeper, 2, wait_s=1.0).outcome()
        holder.let_go()

    assert isinstance(late, DatabaseBusy)
    assert "nightly load" in late.message
    assert "since" in late.message
    assert late.details["writes_before"] == 1
    assert code_of(first.outcome()) == "answered"


def test_a_write_that_waits_is_dropped_when_its_client_goes(busy: tuple[KeeperProcess, Asked]) -> None:
    """Before its turn: gone from the queue, never applied. The one that runs goes on without its client."""
    keeper, slow = busy
    leaving = SlowClient(keeper, "INSERT INTO log VALUES (7)", timeout_s=30, path="/v1/execute")
    wait_until(lambda: len(keeper.client().queue()["writes"]) == 2, what="it waits")
    time.sleep(0.05)
    leaving.leave()
    wait_until(lambda: len(keeper.client().queue()["writes"]) == 1, what="it is dropped")

    keeper.client().cancel(keeper.client().queue()["writes"][0]["id"])
    slow.outcome()
    version = keeper.client().execute("INSERT INTO log VALUES (8)").version
    assert keeper.client().query("FROM log", at_least=version).rows == [[8]]


def test_waiting_and_holding_are_measured(start_keeper: StartKeeper) -> None:
    """The metrics have depth by priority, and histograms of waiting and holding, of writes and of programs."""
    keeper = start_keeper()
    keeper.client().execute("CREATE TABLE log (n INTEGER)")
    with Program(keeper.target).there() as program, Program(keeper.target, command=("true",)) as behind:
        # Why the status: it shows what the keeper's own look has found, and programs are measured from look to look.
        wait_until(lambda: keeper.client().status()["lease"]["waiting"] == 1, what="a look that finds the program that waits")
        write = insert(keeper, 1)
        time.sleep(0.5)  # how long it holds the lease at least, and how long the write waits
        assert (program.let_go()[0], behind.end()[0]) == (0, 0)
        assert code_of(write.outcome()) == "answered"
    wait_until(lambda: not keeper.client().status()["writer"]["is_open"], what="the file was given back")
    wait_until(lambda: not keeper.client().status()["lease"]["waiting"], what="a look that finds the line empty")
    with keeper.http() as http:
        text = http.get("/metrics").text

    values = {line.rpartition(" ")[0]: float(line.split()[-1]) for line in text.splitlines() if line[0] != "#"}
    waits, holds = 'pondkeeper_queue_wait_seconds_{}{{database="pond",kind="{}"}}', 'pondkeeper_lease_hold_seconds_{}{{database="pond",kind="{}"}}'
    assert values[waits.format("count", "write")] == 2
    assert values[waits.format("count", "program")] >= 1  # more, where a look met the ticket of the first one as well
    assert values[waits.format("sum", "write")] > 0.3
    assert values[holds.format("count", "keeper")] >= 2
    assert 0.4 < values[holds.format("sum", "program")] < 90
    assert {f'pondkeeper_queue_depth{{database="pond",priority="{each.value}"}}' for each in Priority} <= values.keys()
    assert "_created" not in text

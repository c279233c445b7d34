"""What waits is carried on with by the successor of a dead writer, in order; only the guilty one pays."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest

from tests.conftest import StartKeeper
from tests.support.asking import Asked, code_of
from tests.support.keeper import KeeperProcess, wait_until

pytestmark = pytest.mark.fault
SLOW = "INSERT INTO log SELECT 0 FROM range(3000000) a, range(3000) b HAVING sum(a.range * b.range) > 0"
DEAF = "INSERT INTO log SELECT levenshtein(repeat('a', 60000), repeat('b', 60000 + n)) FROM log"


def depth(keeper: KeeperProcess) -> int:
    status = keeper.client().databases()[0]
    return int(status["queue"]["depth"])


def behind(keeper: KeeperProcess, first: Asked, count: int) -> Sequence[Asked]:
    """So many one-row inserts that wait in order behind `first`, which runs."""
    wait_until(lambda: depth(keeper) == 1, what="the first write in the queue")
    waiting = []
    for number in range(1, count + 1):
        client = keeper.client(retry_for_s=0.0)
        waiting.append(Asked(lambda client=client, number=number: client.execute("INSERT INTO log VALUES (?)", [number])))
        wait_until(lambda number=number: depth(keeper) == number + 1, what=f"{number + 1} writes in the queue")
    assert not first.is_done()
    return waiting


def has_opened(keeper: KeeperProcess, not_pid: int) -> bool:
    """Whether a writer other than that one has the file open."""
    writer = keeper.client().databases()[0]["writer"]
    return bool(writer["is_open"]) and writer["pid"] != not_pid


def kill_writer(keeper: KeeperProcess) -> int:
    [pid] = keeper.children("writer")
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_write_that_runs_when_the_writer_is_killed_has_one_more_chance(start_keeper: StartKeeper) -> None:
    """It runs again, alone; when that writer dies too, it is refused, and what waits behind it goes on in order."""
    keeper = start_keeper()
    client = keeper.client(retry_for_s=0.0)
    client.execute("CREATE TABLE log (n INTEGER)")
    slow = Asked(lambda: client.execute(SLOW, timeout_s=60))
    waiting = behind(keeper, slow, 5)

    deaths = 0
    while not slow.is_done() and deaths < 3:
        victim = kill_writer(keeper)
        deaths += 1
        # Why open: before that it has not read its batch, and its death would count against nobody.
        wait_until(lambda victim=victim: slow.is_done() or has_opened(keeper, not_pid=victim), what="a successor at work")
    # Why three too: a death with anything unread in the pipe (a late `resume`) counts against nobody.
    assert deaths in (2, 3)

    assert code_of(slow.outcome()) == "worker_died"
    assert [code_of(asked.outcome()) for asked in waiting] == ["answered"] * 5
    assert [n for (n,) in keeper.client().query("FROM log", at_least=waiting[-1].outcome().version).rows] == [1, 2, 3, 4, 5]


def test_killing_a_deaf_write_costs_nobody_else_his(start_keeper: StartKeeper) -> None:
    """A write past its deadline that does not hear the interrupt is killed with its writer; the others are applied."""
    keeper = start_keeper()
    client = keeper.client(retry_for_s=0.0)
    client.execute(["CREATE TABLE log (n INTEGER)", "INSERT INTO log VALUES (0)"])
    deaf = Asked(lambda: client.execute(DEAF, timeout_s=2))
    waiting = behind(keeper, deaf, 5)

    assert code_of(deaf.outcome()) == "write_timed_out"
    assert [code_of(asked.outcome()) for asked in waiting] == ["answered"] * 5
    assert [n for (n,) in keeper.client().query("FROM log", at_least=waiting[-1].outcome().version).rows] == list(range(6))

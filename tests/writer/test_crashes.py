"""kill -9 of anybody at any moment: nothing acknowledged is lost, nothing half applied, and the next request works."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import StartKeeper
from tests.support.asking import Asked, code_of
from tests.support.keeper import KeeperProcess, wait_until
from tests.writer.load import Load, check

pytestmark = pytest.mark.fault
CLIENTS = 3
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "6"))


def kill(pids: list[int]) -> bool:
    """kill -9 of the first of them, if there is any."""
    for pid in pids[:1]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return True
    return False


def template_of(keeper: KeeperProcess) -> list[int]:
    """The pid of its template."""
    return [pid for pid in keeper.children() if b"workers.template" in Path(f"/proc/{pid}/cmdline").read_bytes()
            and not Path(f"/proc/{pid}/comm").read_text().startswith("pond-")]  # fmt: skip


@pytest.mark.timeout(120)
def test_killed_writer_loses_nothing(start_keeper: StartKeeper) -> None:
    """The writer dies again and again under load: each acknowledged commit is there once, each refused one is not."""
    keeper = start_keeper()
    load = Load(keeper, CLIENTS, singles=6)
    load.prepare()
    killed = 0
    with load:
        for _ in range(ROUNDS):
            load.wait_commits(random.randint(3, 80))
            time.sleep(random.uniform(0, 0.02))
            killed += kill(keeper.children("writer"))
        load.wait_commits(30)
    keeper.stop()

    assert killed >= ROUNDS - 1
    assert keeper.log().count("the writer died") >= ROUNDS - 1, "the positive control"
    assert {error.code for error in load.errors()} <= {"worker_died", "outcome_unknown", "database_busy"}
    check(keeper.target, load)


@pytest.mark.timeout(120)
def test_killed_keeper_copier_and_template_lose_nothing(start_keeper: StartKeeper) -> None:
    """kill -9 of the copier, the template and the keeper itself, with a restart: as with the writer; versions only grow."""
    keeper = start_keeper()
    load = Load(keeper, CLIENTS, singles=6)
    load.prepare()
    with load:
        for number in range(ROUNDS):
            load.wait_commits(random.randint(3, 60))
            victim = ("copier", "keeper", "template")[number % 3]
            if victim == "keeper":
                keeper.kill9()
                keeper.start()
            else:
                kill(template_of(keeper) if victim == "template" else keeper.children(victim))
        load.wait_commits(30)
    keeper.stop()

    check(keeper.target, load)


def test_kill_right_after_committing_begins_is_unknown_and_never_half(start_keeper: StartKeeper) -> None:
    """A big commit takes a while: killed in it, the client is told `unknown`, and finds all rows or none."""
    keeper = start_keeper()
    client = keeper.client(retry_for_s=0.0)
    client.execute("CREATE TABLE big (round INTEGER, n BIGINT)")

    def killed_insert(number: int) -> str:
        asked = Asked(lambda: client.execute(f"INSERT INTO big SELECT {number}, range FROM range(3000000)"))
        wait_until(lambda: asked.is_done() or _grows(keeper.database.wal), timeout_s=20, what="a commit on its way")
        time.sleep(random.uniform(0, 0.05))
        kill(keeper.children("writer"))
        return code_of(asked.outcome())

    outcomes = [killed_insert(number) for number in range(6)]
    found = dict(client.query("SELECT round, count(*) FROM big GROUP BY round", at_least=client.execute("SELECT 1").version).rows)

    assert set(outcomes) <= {"answered", "outcome_unknown", "worker_died"}
    for number, outcome in enumerate(outcomes):
        assert found.get(number, 0) in {"answered": {3000000}, "worker_died": {0}}.get(outcome, {0, 3000000})


def _grows(wal: Path) -> bool:
    try:
        return wal.stat().st_size > 1000
    except FileNotFoundError:
        return False

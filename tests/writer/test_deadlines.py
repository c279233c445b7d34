"""Writes have deadlines too: while they wait and while they run, and what a stopped one leaves is nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import PondkeeperError, QueryNotFound
from tests.support.asking import Asked, code_of, running
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import DEAF, busy_cores
from tests.support.programs import Program
from tests.support.strangers import Stranger

LONG = "INSERT INTO t SELECT a.range FROM range(100000) a, range(100000) b, range(100000) c WHERE a.range + b.range + c.range < 0"


@pytest.fixture
def table(client: Client) -> str:
    """An empty table `t`."""
    version = client.execute("CREATE OR REPLACE TABLE t (n BIGINT)").version
    client.query("FROM t", at_least=version)
    return "t"


def count(client: Client) -> int:
    """How many rows `t` has, after everything that was committed."""
    return int(client.query("SELECT count(*) FROM t", at_least=client.execute("SELECT 1").version).scalar())


@pytest.mark.parametrize("deaf", [False, True])
def test_running_write_ends_at_its_deadline_and_changes_nothing(pond: KeeperProcess, client: Client, table: str, deaf: bool) -> None:
    """A statement that runs too long is interrupted, a deaf one killed; the list it is in is rolled back."""
    long = DEAF.replace("SELECT", "INSERT INTO t SELECT", 1) if deaf else LONG
    asked = Asked(lambda: client.execute(["INSERT INTO t VALUES (1)", long, "INSERT INTO t VALUES (2)"], timeout_s=1.0))
    outcome = asked.outcome()

    assert code_of(outcome) == "write_timed_out"
    assert outcome.http_status == 408
    assert 0.9 < asked.took_s < 15
    assert count(client) == 0
    wait_until(lambda: busy_cores(pond.pid) < 0.2, what="an idle writer")


def test_waiting_write_ends_at_its_deadline(client: Client, table: str) -> None:
    """Behind a long write, a short-tempered one gives up in time and is never applied."""
    first = Asked(lambda: client.execute(LONG, timeout_s=20))
    entry = running(client, LONG[:30])
    second = Asked(lambda: client.execute("INSERT INTO t VALUES (7)", wait_s=0.7))

    assert code_of(second.outcome()) == "write_timed_out"
    assert not first.is_done()
    client.cancel(entry["id"])
    assert code_of(first.outcome()) == "query_cancelled"
    assert count(client) == 0


def test_write_that_waits_for_a_stranger_names_it(pond: KeeperProcess, client: Client, table: str, tmp_path: Path) -> None:
    """At the deadline the error says which program, by pid and name, was waited for in vain; afterwards writes work."""
    wait_until(lambda: not client.status("pond")["writer"]["is_open"], what="a closed file")
    with Stranger(pond.target, tmp_path) as stranger:
        asked = Asked(lambda: client.execute("INSERT INTO t VALUES (1)", wait_s=3.0))
        behind = Asked(lambda: client.execute("INSERT INTO t VALUES (2)", wait_s=2.5))
        outcome, other = asked.outcome(), behind.outcome()
        stranger.let_go()

    for error in (outcome, other):
        assert code_of(error) == "database_busy"
        assert str(stranger.pid) in error.message
        assert "python" in error.message
    assert count(client) == 0
    assert client.execute("INSERT INTO t VALUES (3)").outcome == "committed"


def test_write_that_waits_for_the_lease_names_its_holder(pond: KeeperProcess, client: Client, table: str) -> None:
    """Behind `pondkeeper run`, the error names the program and its pid."""
    with Program(pond.target).there() as program:
        outcome = Asked(lambda: client.execute("INSERT INTO t VALUES (1)", wait_s=2.0)).outcome()
        assert program.let_go()[0] == 0

    assert code_of(outcome) == "database_busy"
    assert f"sh (pid {program.pid})" in outcome.message
    assert count(client) == 0


def test_failing_statement_rolls_the_whole_list_back(client: Client, table: str) -> None:
    """All or none, also where the last statement fails on the data, by its text, or at the commit."""
    client.execute("CREATE OR REPLACE TABLE u (n BIGINT PRIMARY KEY)")
    client.execute("INSERT INTO u VALUES (1)")
    for last in ("INSERT INTO u VALUES (1)", "SELECT * FROM nowhere", "SELEC", "INSERT INTO t VALUES ('x')", "COMMIT"):
        with pytest.raises(PondkeeperError) as refused:
            client.execute(["INSERT INTO t VALUES (1)", "DELETE FROM u", "INSERT INTO u VALUES (1)", last])
        assert refused.value.code in ("statement_failed", "sql_invalid", "statement_not_allowed")
    assert count(client) == 0
    assert client.query("SELECT count(*) FROM u").scalar() == 1


def test_cancelled_write_is_never_answered_as_committed(client: Client, table: str) -> None:
    """Trap: an interrupted statement makes DuckDB's COMMIT a silent rollback. Cancelled at any moment, an answer of
    `committed` means that the rows are there, and any other that they are not."""
    there = {number: _write_and_cancel(client, number, after_s=number * 0.006) for number in range(25)}
    count(client)
    found = dict(client.query("SELECT n, count(*) FROM t GROUP BY n").rows)

    assert found == {number: 3_000_010 for number, committed in there.items() if committed}
    assert not all(there.values()), "the positive control: some were cancelled"
    assert _write_and_cancel(client, 99, after_s=20)


def _write_and_cancel(client: Client, number: int, after_s: float) -> bool:
    """Send a write and cancel it some time after it was seen; whether it was answered as committed."""
    statements = [f"INSERT INTO t SELECT {number} FROM range(3000000)", f"INSERT INTO t SELECT {number} FROM range(10)"]
    asked = Asked(lambda: client.execute(statements))
    seen = wait_until(lambda: client.queries() or asked.is_done(), what="the write")
    give_up_at = time.monotonic() + after_s
    while time.monotonic() < give_up_at and not asked.is_done():
        time.sleep(0.001)
    if isinstance(seen, list) and not asked.is_done():
        with suppress(QueryNotFound):  # it has just ended
            client.cancel(seen[0]["id"])
    outcome = code_of(asked.outcome())
    assert outcome in ("answered", "query_cancelled")
    return outcome == "answered"


def test_delete_kills_a_waiting_and_a_running_write(client: Client, table: str) -> None:
    """DELETE /v1/queries/{id} drops a write that waits and interrupts one that runs; neither has changed anything."""
    first = Asked(lambda: client.execute(LONG, timeout_s=20))
    entry = running(client, LONG[:30])
    second = Asked(lambda: client.execute("INSERT INTO t VALUES (8)"))
    waiting = running(client, "INSERT INTO t VALUES (8)")
    client.cancel(waiting["id"])
    assert code_of(second.outcome()) == "query_cancelled"
    assert not first.is_done()
    client.cancel(entry["id"])

    assert code_of(first.outcome()) == "query_cancelled"
    assert count(client) == 0


def test_reads_go_on_beside_a_long_write(client: Client, table: str) -> None:
    """A write that runs keeps nobody from reading."""
    long = Asked(lambda: client.execute(LONG, timeout_s=20))
    entry = running(client, LONG[:30])
    for _ in range(20):
        assert client.query("SELECT count(*) FROM t").scalar() == 0
    assert not long.is_done()
    client.cancel(entry["id"])
    assert code_of(long.outcome()) == "query_cancelled"

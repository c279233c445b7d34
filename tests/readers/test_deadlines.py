"""A deadline is kept by killing: whatever runs, and whatever the client does, it ends and the CPU comes back."""

from __future__ import annotations

import time

import pytest

from pondkeeper.client.client import Client
from tests.readers.conftest import READERS
from tests.support.asking import SlowClient, ask, begun, code_of, running
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import ENDLESS_ROWS, RUNAWAY, RUNAWAYS, busy_cores

IDLE_CORES = 0.1


def wait_idle(keeper: KeeperProcess) -> None:
    """Wait until nothing of the keeper computes and every reader is there again."""
    wait_until(lambda: busy_cores(keeper.pid) < IDLE_CORES, what="an idle keeper")
    wait_until(lambda: len(keeper.children("reader")) == READERS, what="all readers")


@pytest.mark.parametrize("name", RUNAWAYS)
def test_runaway_ends_soon_after_its_deadline(pond: KeeperProcess, client: Client, name: str) -> None:
    """A runaway is answered 408, its CPU is given back, its slot refilled, and others are answered meanwhile."""
    asked = ask(client, RUNAWAYS[name], timeout_s=1.5)
    running(client, RUNAWAYS[name])
    assert client.query("SELECT count(*) FROM numbers").scalar() == 1000
    busy = 0.0
    while not asked.is_done():
        busy = max(busy, busy_cores(pond.pid, 0.2))
    outcome = asked.outcome()

    # The positive control: it did run. Why so little: it gives way, and on a busy machine gets a small share.
    assert busy > 0.01
    if "list" in name and code_of(outcome) == "out_of_memory":  # on a fast machine its memory is over before its time
        return
    assert code_of(outcome) == "query_timed_out"
    assert outcome.http_status == 408
    assert 1.4 < asked.took_s < 15
    wait_idle(pond)
    for _ in range(READERS):
        assert client.query("SELECT 42").scalar() == 42


def test_deadline_covers_a_client_that_reads_slowly(pond: KeeperProcess, client: Client) -> None:
    """A client that does not take its answer loses it at the deadline: reader, CPU and entry are free again."""
    before = set(pond.children("reader"))
    slow, timeout_s = begun(pond, ENDLESS_ROWS)
    with slow:
        assert slow.response.read(1000)
        assert running(client, ENDLESS_ROWS)["state"] == "streaming"

        wait_until(lambda: not client.queries(), what="an end of the stream")
        assert time.monotonic() - slow.began >= timeout_s - 0.1
        wait_idle(pond)
        assert before != set(pond.children("reader"))  # blocked in its pipe, it could only be killed
        assert not slow.read_all()[1]


def test_deadline_covers_an_answer_that_is_read_fast_and_never_ends(pond: KeeperProcess) -> None:
    """An endless answer is cut at the deadline so that nobody takes it for whole."""
    fast, timeout_s = begun(pond, ENDLESS_ROWS)
    with fast:
        received_bytes, whole = fast.read_all()

    assert received_bytes > 1 << 20
    assert not whole
    assert time.monotonic() - fast.began < timeout_s + 15
    wait_idle(pond)


def test_client_that_leaves_cancels_its_query(pond: KeeperProcess, client: Client) -> None:
    """A closed connection ends a query that computes, one that streams and one that waits."""
    with (
        SlowClient(pond, RUNAWAY, timeout_s=55),
        SlowClient(pond, ENDLESS_ROWS, timeout_s=55) as streaming,
    ):
        streaming.response.read(100)
        running(client, RUNAWAY)
        wait_until(lambda: busy_cores(pond.pid) > 0.01, what="a query that computes")
        with SlowClient(pond, "SELECT 'waits'", timeout_s=55):  # Why last: it waits for five seconds only
            running(client, "SELECT 'waits'", state="waiting")
        began = time.monotonic()

    wait_until(lambda: not client.queries(), what="an end of all queries")
    assert time.monotonic() - began < 40  # and not because of their deadlines
    wait_idle(pond)


def test_delete_kills_a_running_a_streaming_and_a_waiting_query(pond: KeeperProcess, client: Client) -> None:
    """DELETE /v1/queries/{id} ends a query in whatever state; only that one."""
    runaway = ask(client, RUNAWAY, timeout_s=55)
    computing = running(client, RUNAWAY, state="running")
    with SlowClient(pond, ENDLESS_ROWS, timeout_s=55) as stream:
        stream.response.read(100)
        flowing = running(client, ENDLESS_ROWS, state="streaming")
        patient = ask(pond.client(retry_for_s=0.0), "SELECT 'patient'", timeout_s=55)
        waiting = running(client, "SELECT 'patient'", state="waiting")

        client.cancel(waiting["id"])
        assert code_of(patient.outcome()) == "query_cancelled"
        assert not runaway.is_done()
        client.cancel(computing["id"])
        assert code_of(runaway.outcome()) == "query_cancelled"
        client.cancel(flowing["id"])
        assert not stream.read_all()[1]
    wait_until(lambda: not client.queries(), what="an end of all queries")
    wait_idle(pond)

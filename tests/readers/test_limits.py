"""Limits of one query, and what is answered when no reader is free."""

from __future__ import annotations

import json

import pytest

from pondkeeper.client.client import Client
from tests.readers.conftest import MAX_WAITING, READERS
from tests.support.asking import ask, begun, code_of, running
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import ENDLESS_ROWS, RUNAWAY

SETTINGS = "SELECT current_setting('threads')::INTEGER, current_setting('memory_limit')"


def test_rows_are_limited_and_the_answer_says_so(client: Client) -> None:
    """`max_rows` cuts after so many rows; an answer that just fits is not called cut."""
    cut = client.query("SELECT n FROM numbers ORDER BY n", max_rows=10)
    whole = client.query("SELECT n FROM numbers ORDER BY n", max_rows=1000)

    assert (cut.row_count, cut.truncated, cut.limit) == (10, True, "max_rows")
    assert [row[0] for row in cut] == list(range(10))
    assert (whole.row_count, whole.truncated, whole.limit) == (1000, False, None)


def test_bytes_are_limited_and_the_answer_says_so(client: Client) -> None:
    """`max_bytes` cuts an endless answer near that size, and quickly."""
    asked = ask(client, ENDLESS_ROWS, max_bytes="1MB", timeout_s=55)
    answer = asked.outcome()
    size_bytes = len(json.dumps(answer.rows))

    assert (answer.truncated, answer.limit) == (True, "max_bytes")
    assert answer.row_count == len(answer.rows)
    assert 0.5e6 < size_bytes < 2.5e6


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
def test_cut_answer_of_a_format_that_cannot_say_so_breaks_off(pond: KeeperProcess, accept: str) -> None:
    """A CSV that a limit of the server's cuts must not look whole to whoever reads it: it ends in an abort, or its head says it."""
    client, _ = begun(pond, "SELECT n, repeat('x', 1000) FROM range(1000000000) AS r(n)", accept=accept)
    with client:
        assert not client.read_all()[1]


def test_memory_and_threads_can_only_be_less(client: Client) -> None:
    """`memory` and `threads` of a query are the engine's own settings while it runs, and never above the server's."""
    assert client.query(SETTINGS).rows == [[2, "1.8 GiB"]]
    assert client.query(SETTINGS, threads=1, memory="128MiB").rows == [[1, "128.0 MiB"]]
    assert client.query(SETTINGS, threads=64, memory="64GiB").rows == [[2, "1.8 GiB"]]


def test_memory_limit_of_a_query_ends_it(client: Client) -> None:
    """What needs more than its own limit fails with that, and the same passes without."""
    sql = "SELECT len(list(i)) FROM range(30000000) AS r(i)"
    assert code_of(ask(client, sql, memory="100MB").outcome()) == "out_of_memory"
    assert client.query(sql).scalar() == 30_000_000


def test_time_limit_cannot_be_raised(pond: KeeperProcess, client: Client) -> None:
    """A query that asks for an hour gets the server's minute: nothing is waited for here, the entry is enough."""
    assert code_of(ask(client, RUNAWAY, timeout_s=0.2).outcome()) == "query_timed_out"


def test_no_free_reader_is_503_with_retry_after(pond: KeeperProcess, client: Client) -> None:
    """A query waits for a reader for a bounded time, and is then told when to come back; too many are told so at once."""
    runaways = [ask(client, RUNAWAY, timeout_s=55) for _ in range(READERS)]
    wait_until(lambda: sum(entry["state"] == "running" for entry in client.queries()) == READERS, what="busy readers")
    waiting = [ask(pond.client(retry_for_s=0.0), f"SELECT {n}", timeout_s=55) for n in range(MAX_WAITING)]
    for n in range(MAX_WAITING):
        running(client, f"SELECT {n}", state="waiting")
    with pond.http() as http:
        full = http.post("/v1/query", json={"sql": "SELECT 'one too many'"})
    refused = [asked.outcome() for asked in waiting]
    for entry in client.queries():
        client.cancel(entry["id"])

    assert (full.status_code, full.json()["error"]["code"]) == (503, "queue_full")
    assert int(full.headers["Retry-After"]) >= 1
    assert {code_of(outcome) for outcome in refused} == {"readers_busy"}
    assert all(4 < asked.took_s < 40 for asked in waiting)  # and not because of a deadline
    assert {code_of(runaway.outcome()) for runaway in runaways} == {"query_cancelled"}
    assert client.query("SELECT 1").scalar() == 1

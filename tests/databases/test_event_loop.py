"""The keeper's event loop waits for nobody: it answers while every reader, the writer and the control database are busy."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from pondkeeper.client.client import Client
from tests.support.asking import Asked, ask, code_of
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import RUNAWAY, mapped_files

SLOW_S = 2.0  # far above what is promised: two lanes of CI share two cores; what holds the loop up here does it for longer
LONG_WRITE = "INSERT INTO t SELECT a.range FROM range(100000) a, range(100000) b, range(100000) c WHERE a.range + b.range + c.range < 0"
ENGINES = ("duckdb", "pyarrow", "arrow", "numpy", "pandas")


def answers(keeper: KeeperProcess, path: str, times: int) -> list[float]:
    """How long each of so many answers took, on one connection, in seconds and in order."""
    took = []
    with httpx.Client(base_url=keeper.url, trust_env=False, timeout=30) as http:
        for _ in range(times):
            began = time.monotonic()
            assert http.get(path).status_code == 200
            took.append(time.monotonic() - began)
            time.sleep(0.01)
    return sorted(took)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another program that holds a SQLite file exclusively."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


def test_keeper_answers_while_everything_is_busy(pond: KeeperProcess, client: Client) -> None:
    """Every reader computes, the writer is in a long statement, control.db is locked: /health/live and status answer."""
    readers = len(pond.children("reader"))
    runaways = [ask(client, RUNAWAY, timeout_s=20) for _ in range(readers)]
    write = Asked(lambda: client.execute(LONG_WRITE, timeout_s=15))
    everybody = readers + 1
    wait_until(lambda: [entry["state"] for entry in client.queries()].count("running") == everybody, what="all at work")
    with locked(pond.home.control_db):
        live = answers(pond, "/health/live", 100)
        began = time.monotonic()
        status = client.status("pond")
        status_s = time.monotonic() - began
        listed = client.queries()
    for entry in listed:
        client.cancel(entry["id"])

    assert status["state"] == "ready"
    assert status["writer"]["is_open"]
    assert len(listed) == everybody
    assert live[len(live) // 2] < SLOW_S / 10
    assert live[-1] < SLOW_S
    assert status_s < SLOW_S
    assert {code_of(asked.outcome()) for asked in [*runaways, write]} == {"query_cancelled"}


def test_keeper_answers_while_a_big_answer_streams(pond: KeeperProcess, client: Client) -> None:
    """Answers of hundreds of megabytes pass through it and nobody waits for them."""
    sql = "SELECT i, repeat('x', 200) FROM range(3000000) AS r(i)"

    def download() -> int:
        with client.stream(sql, format="csv", timeout_s=25) as answer:
            return sum(len(piece) for piece in iter(lambda: answer.read(1 << 20), b""))

    downloads = [Asked(download) for _ in range(2)]
    live = answers(pond, "/health/live", 60)

    assert live[len(live) // 2] < SLOW_S / 5
    assert live[-1] < SLOW_S
    assert [asked.outcome(60) for asked in downloads] == [downloads[0].outcome()] * 2
    assert downloads[0].outcome() > 600_000_000


@pytest.mark.parametrize("name", ["keeper", "reader"])
def test_keeper_has_not_loaded_the_engine(pond: KeeperProcess, client: Client, name: str) -> None:
    """Neither duckdb nor pyarrow is mapped into the keeper, after queries, writes and snapshots in every format."""
    for form in ("json", "ndjson", "csv", "arrow", "parquet"):
        with client.stream("SELECT 1 AS one", format=form) as answer:
            assert answer.read()
    client.take_snapshot("pond")
    pid = pond.pid if name == "keeper" else pond.children("reader")[0]
    loaded = {word for file in mapped_files(pid) for word in ENGINES if f"/{word}" in file or f"_{word}" in file}

    if name == "keeper":
        assert not loaded
    else:
        assert {"duckdb", "pyarrow"} <= loaded  # the positive control: this is where one would see it

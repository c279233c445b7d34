"""One row that comes alone is its own transaction: the same answers as in a group, and an interrupt never lies."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pytest

from pondkeeper.engine.writing import CommitUnknown
from pondkeeper.writer import session
from tests.writer.bench import Bench, Statement

INSERT = "INSERT INTO lone (k, name) VALUES (?, ?)"
ROUNDS, LEAST_HITS, MOST_ROUNDS = 200, 20, 20_000


@pytest.fixture(autouse=True)
def table(bench: Bench) -> None:
    bench.run("CREATE OR REPLACE TABLE lone (k TINYINT PRIMARY KEY, name VARCHAR NOT NULL, n HUGEINT DEFAULT (0))")


def test_it_begins_and_commits_by_one_message(bench: Bench) -> None:
    """And shares no transaction: one that goes with a key, or with others, takes the longer way."""
    answers = bench.apply(bench.batch([[(INSERT, [1, "a"])]]))
    assert [frame["op"] for frame in bench.sent] == ["committing", "answers"]
    assert (answers[1]["kind"], answers[1]["rows_changed"], answers[1]["version"]) == ("applied", [1], bench.version)

    bench.apply(bench.keyed_batch([({"key": "k", "digest": "d"}, [(INSERT, [2, "b"])])]))
    assert [frame["op"] for frame in bench.sent] == ["begun", "committing", "answers"]
    assert bench.run("SELECT k, name FROM lone ORDER BY k") == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("key", [{}, {"key": "named", "digest": "d"}], ids=["alone", "in a group"])
def test_a_new_wal_has_its_name_on_disk_before_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, key: dict[str, str]
) -> None:
    """After a CHECKPOINT, which ends with the WAL's removal, and once only: both ways of committing wait for it."""
    bench.session.checkpoint()
    monkeypatch.setattr(session, "sync_folder", lambda folder: bench.sent.append({"op": "synced"}))
    bench.apply(bench.keyed_batch([(key, [(INSERT, [1, "a"])])]))
    assert [frame["op"] for frame in bench.sent][-3:] == ["committing", "synced", "answers"]
    bench.apply(bench.batch([[(INSERT, [2, "b"])]]))
    assert "synced" not in [frame["op"] for frame in bench.sent]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ([1, "again"], "statement_failed"),  # the primary key
        ([2, None], "statement_failed"),  # NOT NULL
        ([1000, "large"], "statement_failed"),  # no TINYINT
        (["x", "text"], "statement_failed"),
        ([3], "parameter_invalid"),
    ],
)
def test_one_that_is_refused_leaves_nothing_and_ends_nothing(bench: Bench, row: list[object], code: str) -> None:
    """It is told why, and the next one is inserted."""
    bench.run("INSERT INTO lone VALUES (1, 'first', 0)")
    refused = bench.apply(bench.batch([[(INSERT, row)]]))[1]
    assert (refused["kind"], refused["error"]["code"]) == ("refused", code)
    assert bench.apply(bench.batch([[(INSERT, [9, "next"])]]))[1]["kind"] == "applied"
    assert bench.run("SELECT k FROM lone ORDER BY k") == [(1,), (9,)]


def test_a_cancelled_one_is_not_inserted(bench: Bench) -> None:
    """It waits, it is cancelled, it is answered once."""
    batch = bench.batch([[(INSERT, [1, "a"])]])
    batch.cancel(1)
    assert bench.apply(batch)[1]["error"]["code"] == "query_cancelled"
    assert bench.run("SELECT count(*) FROM lone") == [(0,)]


@pytest.mark.fault
def test_what_an_interrupt_stops_is_not_committed(bench: Bench) -> None:
    """At whatever moment it comes: raised means absent, returned means there. Both happen, or the test proves nothing."""
    bench.run("CREATE OR REPLACE TABLE slow (k INTEGER PRIMARY KEY, x DOUBLE DEFAULT (list_sum(range(20000))))")
    raised, returned = set(), set()
    lone = bench.session.lone_insert
    with _interrupting(bench) as chance:
        for k in range(MOST_ROUNDS):
            chance.set()
            try:
                lone.run("INSERT INTO slow (k) VALUES (?)", [k], lambda: None)
                returned.add(k)
            except duckdb.InterruptException:
                raised.add(k)
            if k >= ROUNDS and min(len(raised), len(returned)) >= LEAST_HITS:
                break
    there = {k for (k,) in bench.run("SELECT k FROM slow")}
    assert min(len(raised), len(returned)) >= LEAST_HITS
    assert (raised & there, returned - there) == (set(), set())


@contextmanager
def _interrupting(bench: Bench) -> Iterator[threading.Event]:
    """Another thread that interrupts at a random moment after each `set`."""
    chance, is_over, luck = threading.Event(), threading.Event(), random.Random(1)

    def hit() -> None:
        while not is_over.is_set():
            if chance.wait(0.1):
                chance.clear()
                time.sleep(luck.random() * 0.003)
                bench.session.lone_insert.interrupt()

    thread = threading.Thread(target=hit)
    thread.start()
    try:
        yield chance
    finally:
        is_over.set()
        thread.join()


def test_an_error_that_may_have_committed_is_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the process ends: its successor looks at the file."""

    class Broken:
        description = None

        def execute(self, *_: object) -> None:
            raise duckdb.IOException("Could not write file: Input/output error")

    monkeypatch.setattr(bench.session.lone_insert, "_cursor", Broken())
    with pytest.raises(CommitUnknown):
        bench.session.lone_insert.run(INSERT, [1, "a"], lambda: None)
    write: list[Statement] = [(INSERT, [1, "a"])]
    with pytest.raises(SystemExit):
        bench.apply(bench.batch([write]))
    assert bench.answers()[1]["kind"] == "unknown"

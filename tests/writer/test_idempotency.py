"""A write with a key is applied once, however often it is sent, and whoever dies meanwhile."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import pytest

from pondkeeper.client.keys import WriteKeys
from pondkeeper.engine.idempotency import Outcomes
from pondkeeper.errors import IdempotencyConflict
from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess
from tests.writer.bench import Bench, Statement

INSERT = "INSERT INTO k VALUES (?)"


def keyed(key: str, *statements: Statement, digest: str = "same") -> tuple[dict[str, str], list[Statement]]:
    return {"key": key, "digest": digest}, list(statements)


def kinds(answers: dict[int, dict[str, Any]]) -> list[str]:
    return [answers[number]["error"]["code"] if answers[number]["kind"] == "refused" else answers[number]["kind"]
            for number in sorted(answers)]  # fmt: skip


@pytest.fixture
def table(bench: Bench) -> Bench:
    bench.run("CREATE OR REPLACE TABLE k (n INTEGER CHECK (n < 100)); DROP SCHEMA IF EXISTS _pondkeeper CASCADE")
    return bench


def test_repeated_in_one_batch_and_in_the_next_it_is_applied_once(table: Bench) -> None:
    """The repetition gets the first outcome with its rows changed; others in the batch are as they are."""
    write = keyed("a", (INSERT, [1]), ("INSERT INTO k SELECT * FROM range(3)", None))
    first = table.apply(table.keyed_batch([write, keyed("b", (INSERT, [2])), write, ({}, [(INSERT, [3])])]))
    second = table.apply(table.keyed_batch([write]))

    assert kinds(first) == ["applied"] * 4
    assert first[3]["rows_changed"] == second[1]["rows_changed"] == [1, 3]
    assert len(table.run("FROM k")) == 6


def test_many_keys_share_a_commit_and_each_is_known(table: Bench) -> None:
    """Fifty writes with keys: one commit, fifty outcomes; all fifty again: none."""
    writes = [keyed(f"key {n}", (INSERT, [n])) for n in range(50)]
    table.apply(table.keyed_batch(writes))
    assert len(table.commits) < 10  # one, on a machine that has nothing else to do
    assert kinds(table.apply(table.keyed_batch(writes))) == ["applied"] * 50

    assert table.commits == []
    assert table.run("SELECT count(*), count(DISTINCT n) FROM k") == [(50, 50)]


def test_other_statements_under_the_same_key_are_refused(table: Bench) -> None:
    """The digest differs: refused, in the same batch and later; nothing is applied."""
    table.apply(table.keyed_batch([keyed("a", (INSERT, [1]))]))
    answers = table.apply(table.keyed_batch([keyed("a", (INSERT, [2]), digest="another")]))

    assert kinds(answers) == ["idempotency_conflict"]
    assert table.run("FROM k") == [(1,)]


def test_a_refused_write_is_not_remembered(table: Bench) -> None:
    """What failed may be sent again under its key, and can then succeed; neighbours keep their outcomes."""
    batch = [keyed("a", (INSERT, [1])), keyed("b", (INSERT, [100])), keyed("c", (INSERT, [3]))]
    assert kinds(table.apply(table.keyed_batch(batch))) == ["applied", "statement_failed", "applied"]
    table.run("CREATE OR REPLACE TABLE k (n INTEGER)")

    assert kinds(table.apply(table.keyed_batch(batch))) == ["applied"] * 3
    assert table.run("FROM k") == [(100,)]


def test_outcomes_are_forgotten_after_their_time(table: Bench) -> None:
    """With a time of nothing, the next look removes it, and the key is free for another write."""
    table.apply(table.keyed_batch([keyed("a", (INSERT, [1]))]))
    assert not table.session.outcomes.forget(3600)
    assert table.session.outcomes.forget(-1)
    assert kinds(table.apply(table.keyed_batch([keyed("a", (INSERT, [2]), digest="another")]))) == ["applied"]


def test_a_key_is_known_until_all_of_its_table_is_old(table: Bench) -> None:
    """When the oldest record has had its time a new table is begun; those in the one before are known, and then dropped whole."""
    automatic = WriteKeys().new()
    batch = table.keyed_batch([keyed("a", (INSERT, [1])), keyed(automatic, (INSERT, [2]))])
    table.apply(batch)
    table.run("UPDATE _pondkeeper.idempotency SET committed_at = committed_at - INTERVAL 2 HOUR WHERE key = 'a'")
    assert table.session.outcomes.forget(3600)
    assert not table.session.outcomes.forget(3600)

    again = [keyed("a", (INSERT, [1])), keyed(automatic, (INSERT, [2])), keyed("b", (INSERT, [3]))]
    assert kinds(table.apply(table.keyed_batch(again))) == ["applied"] * 3
    assert table.run("FROM k ORDER BY n") == [(1,), (2,), (3,)]
    assert len(tables_of_keys(table)) == 2
    table.run("UPDATE _pondkeeper.idempotency SET committed_at = committed_at - INTERVAL 2 HOUR")
    assert table.session.outcomes.forget(3600)
    assert tables_of_keys(table) == [("idempotency_1",)]
    assert kinds(table.apply(table.keyed_batch([keyed("b", (INSERT, [3]))]))) == ["applied"]
    assert table.run("SELECT count(*) FROM k") == [(3,)]


def test_looking_after_keys_leaves_no_transaction_open(table: Bench) -> None:
    """A checkpoint can be made after each of the things that are done for keys: an open transaction would refuse it."""
    outcomes = table.session.outcomes
    for look in (lambda: outcomes.known(["a"]), lambda: outcomes.forget(3600), lambda: outcomes.forget(-1)):
        table.apply(table.keyed_batch([keyed(WriteKeys().new(), (INSERT, [1]))]))
        look()
        table.run("UPDATE k SET n = n + 1")  # what an older reading transaction can see is in the way of a checkpoint
        table.session.checkpoint()


def tables_of_keys(bench: Bench) -> list[Any]:
    return bench.run("SELECT table_name FROM duckdb_tables() WHERE schema_name = '_pondkeeper' ORDER BY ALL")


def test_new_keys_are_not_looked_up(table: Bench) -> None:
    """Nobody asks for a key that surely is new: the first of an opening, those of others' making and old ones are asked for."""
    outcomes, keys = table.session.outcomes, WriteKeys()
    first = keys.new()
    table.apply(table.keyed_batch([keyed(first, (INSERT, [1]))]))
    assert not outcomes.must_look_up([first, "order 4711"])
    table.run("UPDATE _pondkeeper.idempotency SET committed_at = committed_at - INTERVAL 2 HOUR")
    table.apply(table.keyed_batch([keyed(second := keys.new(), (INSERT, [2]))]))
    outcomes.forget(3600)

    assert not outcomes.must_look_up([keys.new()])
    assert outcomes.must_look_up([keys.new(), first])
    assert outcomes.must_look_up([second])
    assert outcomes.must_look_up(["order 4711"])
    assert Outcomes(table.session._own).must_look_up([keys.new()])


def test_a_key_that_stands_in_the_way_is_found_before_anything_is_refused(table: Bench) -> None:
    """Repeated among new ones, also where the statement itself would be refused the second time: the first outcome."""
    table.run("CREATE OR REPLACE TABLE k (n INTEGER PRIMARY KEY)")
    table.apply(table.keyed_batch([keyed("a", (INSERT, [1]))]))
    batch = [keyed("b", (INSERT, [2])), keyed("a", (INSERT, [1])), keyed("c", (INSERT, [3])), keyed("d", (INSERT, [3]))]

    assert kinds(table.apply(table.keyed_batch(batch))) == ["applied", "applied", "applied", "statement_failed"]
    assert table.run("FROM k ORDER BY n") == [(1,), (2,), (3,)]


def test_key_over_http_and_on_the_command_line(start_keeper: StartKeeper) -> None:
    """The same answer for the same key, also after kill -9 of the keeper; 409 for another body; a bad key is refused."""
    keeper = start_keeper()
    client = keeper.client()
    client.execute("CREATE TABLE k (n INTEGER)")
    first = client.execute(INSERT, [1], idempotency_key="order 4711")
    keeper.kill9()
    keeper.start()
    client = keeper.client()
    again = client.execute(INSERT, [1], idempotency_key="order 4711")
    by_hand = keeper.cli("execute", INSERT, "-p", "1", "--idempotency-key", "order 4711", "--json")

    assert (again.outcome, again.rows_changed) == (first.outcome, first.rows_changed) == ("committed", 1)
    assert by_hand.returncode == 0, by_hand.stderr
    with pytest.raises(IdempotencyConflict):
        client.execute(INSERT, [2], idempotency_key="order 4711")
    assert client.query("FROM k", at_least=again.version).rows == [[1]]
    with keeper.http() as http:
        bad = http.post("/v1/execute", json={"sql": "SELECT 1"}, headers={"Idempotency-Key": "x" * 256})
    assert bad.status_code == 400


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_with_keys_no_death_of_the_writer_is_felt(start_keeper: StartKeeper) -> None:
    """The writer is killed again and again under load: every write is answered `committed`, and is there once."""
    keeper = start_keeper()
    keeper.client().execute("CREATE TABLE log (client INTEGER, seq INTEGER)")
    stop, done, errors = threading.Event(), [0, 0, 0, 0], []

    def write(number: int) -> None:
        client = keeper.client()
        while not stop.is_set() and not errors:
            seq = done[number]
            try:
                client.execute("INSERT INTO log VALUES (?, ?)", [number, seq], idempotency_key=f"{number}-{seq}")
            except Exception as error:
                errors.append(error)
            done[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    killed = {_kill_after_some(keeper, done) for _ in range(6)}
    stop.set()
    for thread in threads:
        thread.join(60)

    assert len(killed) >= 5, "the positive control"
    assert errors == []
    version = keeper.client().execute("SELECT 1").version
    found = keeper.client().query("SELECT client, list(seq ORDER BY rowid) FROM log GROUP BY ALL ORDER BY ALL", at_least=version)
    assert [list(seqs) for _, seqs in found.rows] == [list(range(count)) for count in done]


def _kill_after_some(keeper: KeeperProcess, done: list[int]) -> int:
    """Kill the writer amid the writes; who it was. Why it is waited for: the successor of the last one may not be there yet."""
    goal, give_up_at = sum(done) + random.randint(5, 40), time.monotonic() + 20
    while sum(done) < goal and time.monotonic() < give_up_at:
        time.sleep(0.001)
    pid = keeper.writer_pid()
    os.kill(pid, signal.SIGKILL)
    return pid

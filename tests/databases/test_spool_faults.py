"""kill -9, power cuts and full disks against wait=accepted: what has a ticket is in the database once, in its order."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import duckdb
import httpx
import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import SpoolUnavailable
from pondkeeper.writer.spool import appending
from pondkeeper.writer.spool.log import Header
from pondkeeper.writer.spool.spool import Spool, SpoolLimits
from tests.bad_input.places import MIB, SmallDisk, with_a_small_disk
from tests.conftest import StartKeeper
from tests.databases.accepting import NDJSON, Senders, accepted, lease_held, ndjson, outcome_of, send, wait_drained
from tests.support.keeper import KeeperProcess, keepers, wait_until

pytestmark = pytest.mark.fault
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
TABLE = "CREATE TABLE t (client INTEGER, seq INTEGER)"


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_killed_keepers_lose_nothing_and_double_nothing(start_keeper: StartKeeper) -> None:
    """The keeper, its writer, its stagers, at random moments, under clients with and without keys."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    dice = random.Random()
    with Senders(keeper, 6) as senders:
        for number in range(ROUNDS):
            senders.wait_accepted(dice.randint(5, 200))
            time.sleep(dice.uniform(0, 0.2))
            victim = ("keeper", "writer", "stager")[number % 3]
            if victim == "keeper":
                keeper.kill9()
                keeper.start()
            else:
                for pid in keeper.children(victim):
                    os.kill(pid, signal.SIGKILL)
        senders.wait_accepted(20)
    wait_drained(keeper)
    keeper.stop()
    assert senders.check(keeper.target) >= senders.accepted


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_a_keeper_killed_while_it_recovers_recovers_the_next_time(start_keeper: StartKeeper) -> None:
    """Again and again within its first moments, with a thousand tickets that a lease keeps waiting."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    with lease_held(keeper.database), Senders(keeper, 8) as senders:
        senders.wait_accepted(1000, timeout_s=60)
        keeper.kill9()
    for _ in range(ROUNDS):
        keeper.launch()
        time.sleep(random.uniform(0.2, 1.5))
        keeper.kill9()
    keeper.restart()
    wait_drained(keeper)
    keeper.stop()
    assert senders.check(keeper.target) >= senders.accepted


# Between the commit and its note


@contextmanager
def unable_to_note(keeper: KeeperProcess) -> Iterator[None]:
    """The keeper cannot write down outcomes: somebody else has the ledger."""
    with closing(sqlite3.connect(keeper.database.spool / "tickets.db", isolation_level=None)) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        yield
        ledger.execute("ROLLBACK")


def killed_between_commit_and_note(keeper: KeeperProcess, count: int) -> list[str]:
    """Accept so many, and kill the keeper when they are in the database, and nobody but the database knows."""
    with ExitStack() as noting:
        with lease_held(keeper.database), keeper.http() as http:
            tickets = [accepted(send(http, "pond", "t", {"client": 0, "seq": n})) for n in range(1, count + 1)]
            keeper.kill9()  # Why: what waits when a keeper starts is one load.
            keeper.restart()
            client = keeper.client()
            wait_until(lambda: is_taken(client, tickets[-1]), timeout_s=30, what="a load of them all")
            noting.enter_context(unable_to_note(keeper))
        wait_until(lambda: client.query("SELECT count(*) FROM t").scalar() == count, timeout_s=60, what="the rows")
        keeper.kill9()
    return tickets


def opened(file: Path) -> duckdb.DuckDBPyConnection:
    """The database of a keeper that was killed, as soon as its writer has ended as well."""

    def connection() -> duckdb.DuckDBPyConnection | None:
        try:
            return duckdb.connect(str(file))
        except duckdb.IOException:
            return None

    found: duckdb.DuckDBPyConnection = wait_until(connection, timeout_s=30, what="the end of the writer")
    return found


def is_taken(client: Client, ticket: str) -> bool:
    try:
        return bool(client.ticket(ticket)["is_being_applied"])
    except SpoolUnavailable:  # it is being opened
        return False


def test_rows_that_only_the_database_knows_of_are_not_doubled(start_keeper: StartKeeper) -> None:
    """The keeper dies after the commit and before its note: the keys in the database say what was applied."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    tickets = killed_between_commit_and_note(keeper, 50)
    keeper.restart()
    with keeper.http() as http:
        more = accepted(send(http, "pond", "t", {"client": 0, "seq": 51}))
    last = outcome_of(keeper, more)
    assert keeper.client().query("SELECT count(*), max(seq) FROM t", at_least=last["version"]).rows == [[51, 51]]
    outcomes = [outcome_of(keeper, ticket) for ticket in tickets]
    assert {(each["outcome"], each["rows"]) for each in outcomes} == {("committed", 1)}


def test_without_their_keys_they_would_be_doubled(start_keeper: StartKeeper) -> None:
    """The positive control of the test before: the keys are taken out of the database while nobody runs."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    tickets = killed_between_commit_and_note(keeper, 50)
    with opened(keeper.target) as database:
        [(forgotten,)] = database.execute("DELETE FROM _pondkeeper.idempotency WHERE key LIKE 'tk_%'").fetchall()
    assert forgotten == 50
    keeper.restart()
    last = outcome_of(keeper, tickets[-1])
    assert keeper.client().query("SELECT count(*) FROM t", at_least=last["version"]).scalar() == 100


def test_keys_are_not_forgotten_while_they_may_be_asked_for(start_keeper: StartKeeper) -> None:
    """However old they are: a keeper that was away for days asks first, whatever else is written before."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    tickets = killed_between_commit_and_note(keeper, 5)
    with opened(keeper.target) as database:
        database.execute("UPDATE _pondkeeper.idempotency SET committed_at = TIMESTAMP '2020-01-01'")
    with unable_to_note(keeper):
        keeper.restart()
        keeper.client().execute("CREATE TABLE other (n INTEGER)", idempotency_key="some write that looks for old keys")
        keeper.client().execute("INSERT INTO other VALUES (1)", idempotency_key="and another one")
    last = outcome_of(keeper, tickets[-1])
    assert keeper.client().query("SELECT count(*) FROM t", at_least=last["version"]).scalar() == 5


# Power cuts


async def cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch, *, syncs: bool) -> tuple[set[str], set[str]]:
    """Accept some, and cut the power: of each file what was fsynced is left. What was accepted, and what is there then."""
    durable: dict[str, int] = {}
    plain = os.fdatasync

    def noted(descriptor: int) -> None:
        if syncs:
            plain(descriptor)
            durable[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = os.fstat(descriptor).st_size

    monkeypatch.setattr(appending, "SEGMENT_BYTES", 2000)
    monkeypatch.setattr(os, "fdatasync", noted)
    limits = SpoolLimits(10**9, 10**6, 3600.0)
    spool = Spool(folder / "spool", folder / "incoming", limits)
    await spool.open()
    said: set[str] = set()
    left: dict[str, int] = {}
    for number in range(50):
        header = Header(table="t", format="ndjson", digest="", accepted_at=0.0)
        said.add(await spool.accept(header, b"x" * random.randint(0, 300) + b"%d" % number))
        left = dict(durable)
    shutil.copytree(folder / "spool", folder / "after" / "spool")
    await spool.close()
    for path in (folder / "after" / "spool").glob("*.log"):
        size_bytes = left.get(str(folder / "spool" / path.name), 0)
        with path.open("rb+") as file:
            file.truncate(size_bytes + random.randint(0, max(0, path.stat().st_size - size_bytes)))
    after = Spool(folder / "after" / "spool", folder / "after" / "incoming", limits)
    await after.open()
    seen = {each.ticket for each in await after.tickets.waiting(1000)}
    await after.close()
    return said, seen


async def test_a_power_cut_takes_nothing_that_was_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever had no fsync yet may be gone, by any part of it."""
    said, seen = await cut_off(tmp_path, monkeypatch, syncs=True)
    assert len(said) == 50
    assert said <= seen


async def test_without_fsync_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: the same with a spool that only says that it syncs."""
    said, seen = await cut_off(tmp_path, monkeypatch, syncs=False)
    assert not said <= seen


@pytest.mark.timeout(180)
def test_a_tail_torn_at_any_byte_is_cut_off(start_keeper: StartKeeper) -> None:
    """What a real keeper has written, cut within its last group: it starts, and has all that was before."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    with lease_held(keeper.database), keeper.http() as http:
        for seq in range(1, 6):
            accepted(send(http, "pond", "t", {"client": 0, "seq": seq}))
        keeper.kill9()
    [log] = keeper.database.spool.glob("*.log")
    log.write_bytes(log.read_bytes()[: -random.randint(1, 100)] + bytes(random.randint(0, 100)))
    keeper.restart()
    wait_drained(keeper)
    with keeper.http() as http:
        last = outcome_of(keeper, accepted(send(http, "pond", "t", {"client": 0, "seq": 6})))
    rows = keeper.client().query("SELECT seq FROM t ORDER BY rowid", at_least=last["version"]).rows
    assert rows == [[1], [2], [3], [4], [6]]
    assert "cut_off_bytes" in keeper.log()


def test_damage_is_told_and_the_rest_is_applied(start_keeper: StartKeeper) -> None:
    """In the status, the metrics, the log and the doctor; what is whole goes on."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    with lease_held(keeper.database), keeper.http() as http:
        for seq in range(1, 6):
            accepted(send(http, "pond", "t", {"client": 0, "seq": seq}))
        keeper.kill9()
    [log] = keeper.database.spool.glob("*.log")
    log.write_bytes(log.read_bytes().replace(b'"seq": 3', b'"seq": 9'))
    keeper.restart()
    wait_drained(keeper)
    client = keeper.client()
    version = client.execute("INSERT INTO t VALUES (0, 6)").version
    rows = client.query("SELECT seq FROM t ORDER BY rowid", at_least=version).rows
    assert rows == [[1], [2], [4], [5], [6]]
    assert client.status("pond")["spool"]["damaged"] == [log.stem]
    with keeper.http() as http:
        assert 'pondkeeper_spool_damaged{database="pond"} 1.0' in http.get("/metrics").text
    assert "the spool is damaged" in keeper.log()
    wait_until(lambda: list(keeper.database.spool.glob("*.damaged")), timeout_s=30, what="the segment set aside")
    assert "of the spool is damaged" in keeper.cli("check").stdout


# Databases that cannot be opened, and disks that are full


def test_rows_are_accepted_for_a_database_that_cannot_be_opened(start_keeper: StartKeeper) -> None:
    """It is damaged when the keeper starts: rows are accepted all the same, and applied when it is mended."""
    keeper = start_keeper()
    keeper.client().execute(TABLE)
    keeper.stop()
    whole = keeper.target.read_bytes()
    keeper.target.write_bytes(b"\0" * len(whole))
    keeper.restart()
    with keeper.http() as http:
        tickets = [accepted(send(http, "pond", "t", {"client": 0, "seq": seq})) for seq in range(5)]
        shown = http.get(f"/v1/databases/pond/tickets/{tickets[0]}").json()
    assert shown["outcome"] == "waiting"
    wait_until(
        lambda: (keeper.client().ticket(tickets[0])["problem"] or {}).get("code") == "database_unreadable",
        timeout_s=30,
        what="the reason why they wait",
    )
    keeper.target.write_bytes(whole)
    last = outcome_of(keeper, tickets[-1], timeout_s=60)
    assert last["outcome"] == "committed"
    assert keeper.client().query("SELECT count(*) FROM t", at_least=last["version"]).scalar() == 5


@pytest.mark.privileged
@pytest.mark.timeout(150)
def test_a_full_disk_under_the_spool_accepts_nothing(tmp_path: Path) -> None:
    """507 for small and large bodies; what was accepted before is applied, and accepting resumes when there is room."""
    place, database = tmp_path / "home", tmp_path / "data" / "pond.duckdb"
    place.mkdir()
    database.parent.mkdir()
    under = with_a_small_disk(place, 128 * MIB)
    with keepers(KeeperProcess(database, home=place, under=under)) as (keeper,):
        keeper.start()
        keeper.client().execute(TABLE)
        disk = SmallDisk(keeper, place)
        sent = sent_until_full(keeper, disk)
        with keeper.http() as http:
            large = send(http, "pond", "t", ndjson(*({"client": 1, "seq": n} for n in range(10_000))))
            assert (large.status_code, large.json()["error"]["code"]) == (507, "disk_full")
            disk.free()
            seq = len(sent)
            ticket = wait_until(lambda: resumed(http, seq), timeout_s=30, what="the next accepted one")
        last = outcome_of(keeper, ticket)
        version = keeper.client().execute("INSERT INTO t VALUES (2, 0)").version
        answer = keeper.client().query("SELECT seq FROM t WHERE client = 0 ORDER BY rowid", at_least=version)
        assert [seq for [seq] in answer.rows] == list(range(seq + 1))
        assert last["outcome"] == "committed"


def sent_until_full(keeper: KeeperProcess, disk: SmallDisk) -> list[str]:
    """Tickets of one row each, until the disk is full."""
    with lease_held(keeper.database), keeper.http() as http:
        sent = [accepted(send(http, "pond", "t", {"client": 0, "seq": seq})) for seq in range(20)]
        disk.fill()
        for seq in range(20, 1000):
            # Why that long: a page of the file may have had room for many short ones.
            answer = send(http, "pond", "t", ndjson({"client": 0, "seq": seq}) + b"\n" * 5000)
            if answer.status_code != 202:
                assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
                return sent
            sent.append(accepted(answer))
    raise AssertionError("the positive control: the disk never was full")


def resumed(http: httpx.Client, seq: int) -> str | None:
    answer = send(http, "pond", "t", {"client": 0, "seq": seq}, headers=NDJSON)
    return accepted(answer) if answer.status_code == 202 else None

"""Readers may die at any moment of anything: it costs exactly the request that they ran."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from pondkeeper.client.client import Client
from tests.readers.conftest import READERS
from tests.support.asking import SlowClient, ask, busy_reader, code_of, running
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import DEAF, ENDLESS_ROWS, RUNAWAY, busy_cores, is_alive
from tests.support.sizes import size_bytes

pytestmark = pytest.mark.fault
SPILLS = "SELECT max(x) FROM (SELECT i, repeat(md5(i::VARCHAR), 4) AS x FROM range(30000000) AS r(i) ORDER BY x DESC OFFSET 10)"


def wait_refilled(keeper: KeeperProcess, gone: set[int], timeout_s: float = 40.0) -> None:
    """Wait until all readers are there again, none of them one of those that are gone."""

    def refilled() -> bool:
        readers = set(keeper.children("reader"))
        return len(readers) == READERS and not readers & gone

    wait_until(refilled, timeout_s=timeout_s, what="new readers")


def put_back(keeper: KeeperProcess) -> int:
    """Make the table what it was; the version that has it so, which is the newest when this returns."""
    client = keeper.client()
    version = client.execute("DELETE FROM numbers WHERE n = 1000").version
    return client.query("SELECT 1", at_least=version).version


def test_killed_reader_costs_exactly_its_own_request(pond: KeeperProcess, client: Client) -> None:
    """kill -9 of a reader in mid-query: that client gets `worker_died`, everybody else an answer."""
    victim = ask(client, RUNAWAY, timeout_s=55)
    pid = busy_reader(pond)
    with SlowClient(pond, ENDLESS_ROWS.replace("1000000000", "300000"), timeout_s=55) as streaming:
        streaming.response.read(1000)
        os.kill(pid, signal.SIGKILL)
        outcome = victim.outcome()
        others = [client.query("SELECT count(*) FROM numbers").scalar() for _ in range(20)]
        received_bytes, whole = streaming.read_all()

    assert code_of(outcome) == "worker_died"
    assert (outcome.http_status, outcome.details["status"]) == (502, -signal.SIGKILL)
    assert others == [1000] * 20
    assert whole
    assert received_bytes > 300_000 * 500
    wait_refilled(pond, {pid})


def test_killed_reader_in_mid_answer_leaves_no_answer_that_looks_whole(pond: KeeperProcess) -> None:
    """A reader that dies while it streams: the connection is aborted."""
    with SlowClient(pond, ENDLESS_ROWS, timeout_s=55) as streaming:
        streaming.response.read(1000)
        before = set(pond.children("reader"))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert not streaming.read_all()[1]
    wait_refilled(pond, before)


def test_idle_readers_may_be_killed(pond: KeeperProcess, client: Client) -> None:
    """Nobody notices: a query meanwhile waits for a new reader."""
    for _ in range(3):
        before = set(pond.children("reader"))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert client.query("SELECT count(*) FROM numbers").scalar() == 1000
        wait_refilled(pond, before)


def test_template_may_be_killed(pond: KeeperProcess, client: Client) -> None:
    """Its children live on, and the next one comes from a new template."""
    [template] = filter(_is_template, pond.children())
    # Why a wait: one of them may still be replaced after the test before.
    before = set(wait_until(lambda: len(found := pond.children("reader")) == READERS and found, what="all readers"))
    os.kill(template, signal.SIGKILL)
    assert client.query("SELECT 1").scalar() == 1
    assert set(pond.children("reader")) == before
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    assert client.query("SELECT 1", timeout_s=40).scalar() == 1
    wait_refilled(pond, before)
    assert pond.client().execute("INSERT INTO numbers VALUES (1000)").outcome == "committed"
    put_back(pond)


def test_temp_files_of_a_killed_reader_are_removed(pond: KeeperProcess, client: Client) -> None:
    """What a query had spilled when it was killed does not fill the disk."""
    temp = pond.home.temp

    def spilled_bytes() -> int:
        return size_bytes(temp, "reader-*/**/*")

    asked = ask(client, SPILLS, timeout_s=55, memory="150MB")
    wait_until(lambda: spilled_bytes() > 1 << 20 or asked.is_done(), timeout_s=60, what="a spill")
    assert spilled_bytes() > 1 << 20, code_of(asked.outcome())  # the positive control: it was there
    pid = busy_reader(pond)
    os.kill(pid, signal.SIGKILL)

    assert code_of(asked.outcome()) == "worker_died"
    wait_refilled(pond, {pid})
    wait_until(lambda: spilled_bytes() == 0, what="an empty temp folder")
    wait_until(lambda: len(list(temp.glob("reader-*"))) == READERS, what="one temp folder per reader")


def test_deaf_query_is_killed_and_its_neighbour_is_not(pond: KeeperProcess, client: Client) -> None:
    """A call that hears no interrupt ends with its process at the deadline; the other reader goes on."""
    before = set(pond.children("reader"))
    deaf = ask(client, DEAF, timeout_s=2.0)
    running(client, DEAF, state="running")
    assert code_of(deaf.outcome()) == "query_timed_out"
    after = set(pond.children("reader"))
    assert len(before & after) == READERS - 1
    wait_refilled(pond, before - after)


def test_unusable_temp_folder_is_braked_and_mended(pond: KeeperProcess, client: Client) -> None:
    """While no reader can be started the keeper stays up and tries ever more slowly; then the slots are filled."""
    aside = pond.home.temp.with_name("temp-aside")
    pond.home.temp.rename(aside)
    pond.home.temp.touch()
    before, logged = set(pond.children("reader")), len(pond.log())

    def attempts() -> int:
        return pond.log()[logged:].count("a reader could not be started")

    try:
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        refused = ask(client, "SELECT 1", timeout_s=2)
        assert code_of(refused.outcome()) == "readers_busy"
        assert pond.is_running()
        wait_until(lambda: attempts() >= 2, what="more than one attempt")
        assert attempts() <= 30
        wait_until(lambda: busy_cores(pond.pid) < 0.3, what="a keeper that has nothing to do")
    finally:
        pond.home.temp.unlink()
        shutil.rmtree(aside)
        pond.home.temp.mkdir(mode=0o700)
    wait_refilled(pond, before)
    assert client.query("SELECT count(*) FROM numbers", timeout_s=40).scalar() == 1000


def test_snapshot_that_has_gone_is_an_error_and_no_endless_loop(pond: KeeperProcess, client: Client) -> None:
    """Somebody removed the snapshots: new opens fail clearly within the deadline, and the next publish mends it."""
    for version in pond.database.snapshots.iterdir():
        if version.is_dir():
            shutil.rmtree(version)
    asked = ask(client, "SELECT count(*) FROM numbers", timeout_s=1.5, memory="100MB")
    assert code_of(asked.outcome()) == "database_unavailable"
    assert asked.took_s < 20
    wait_until(lambda: busy_cores(pond.pid) < 0.3, what="a keeper that has nothing to do")

    version = pond.client().execute("INSERT INTO numbers VALUES (1000)").version
    assert client.query("SELECT count(*) FROM numbers", at_least=version, memory="100MB").scalar() == 1001
    put_back(pond)


def test_snapshot_that_cannot_be_opened_is_no_crash_loop(pond: KeeperProcess, client: Client) -> None:
    """A damaged snapshot is answered as what it is; nobody opens it again and again; the next publish mends it."""
    version = put_back(pond)
    file = Path(pond.database.snapshot(version))
    file.chmod(0o600)
    with file.open("r+b") as snapshot:
        snapshot.write(b"\0" * 12288)
    before = set(pond.children("reader"))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    asked = ask(client, "SELECT count(*) FROM numbers", timeout_s=20)
    outcome = asked.outcome()

    assert code_of(outcome) in ("database_unreadable", "database_unavailable")
    wait_refilled(pond, before)
    readers = set(pond.children("reader"))
    wait_until(lambda: busy_cores(pond.pid, 1.0) < 0.3, what="a keeper that has nothing to do")
    assert set(pond.children("reader")) == readers
    assert all(is_alive(pid) for pid in readers)
    version = pond.client().execute("INSERT INTO numbers VALUES (1000)").version
    assert client.query("SELECT count(*) FROM numbers", at_least=version).scalar() == 1001
    put_back(pond)


def _is_template(pid: int) -> bool:
    return b"pondkeeper.workers.template" in Path(f"/proc/{pid}/cmdline").read_bytes() and "pond-" not in Path(
        f"/proc/{pid}/comm"
    ).read_text()

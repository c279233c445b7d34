"""Long checkpoints: writes wait for them and not they for writes, and no deadline of a write ends one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from pondkeeper.client.client import Client
from tests.conftest import StartKeeper
from tests.support.asking import Asked, code_of
from tests.support.keeper import KeeperProcess, wait_until
from tests.writer.load import Load, check

pytestmark = pytest.mark.fault
ROWS = 1_000_000
# A change that is small in the WAL and makes the checkpoint write most of the table anew: a second or more.
TOUCH = "UPDATE big SET x = x + 1, s = md5(s) WHERE n % 499 = 0"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with a table whose checkpoints take long."""
    with KeeperProcess(tmp_path_factory.mktemp("lake") / "pond.duckdb", "--readers", "1") as keeper:
        client = keeper.client()
        client.execute(["CREATE TABLE t (n BIGINT)", fill()])
        yield keeper


def fill() -> str:
    return f"CREATE TABLE big AS SELECT range AS n, md5(range::VARCHAR) AS s, 0 AS x FROM range({ROWS})"


def touch(client: Client) -> int:
    """Change the big table when the writer is done with everything before; the version of the change."""
    version = client.execute("SELECT 1").version
    client.query("SELECT 1", at_least=version)
    return client.execute(TOUCH).version


def test_write_that_is_in_a_hurry_ends_no_checkpoint(lake: KeeperProcess) -> None:
    """Writes whose deadline passes while a checkpoint runs are told so, by a writer that lives on and publishes."""
    client = lake.client(retry_for_s=0.0)
    version = touch(client)
    writer = lake.writer_pid()
    outcomes = []
    began = time.monotonic()
    while client.query("SELECT 1").version < version and time.monotonic() - began < 20:
        outcomes.append(code_of(Asked(lambda: client.execute("INSERT INTO t VALUES (1)", wait_s=0.04)).outcome()))

    assert client.query("SELECT 1", at_least=version).version >= version
    assert "write_timed_out" in outcomes, "the positive control: the checkpoint took longer than that"
    assert set(outcomes) <= {"write_timed_out", "answered"}
    assert lake.writer_pid() == writer
    applied = client.query("SELECT count(*) FROM t WHERE n = 1", at_least=client.execute("SELECT 1").version).scalar()
    assert applied == outcomes.count("answered")


def test_write_that_is_in_a_hurry_ends_no_recovery(lake: KeeperProcess) -> None:
    """After a crash the successor's own checkpoint may outlast a deadline: it goes on, and the next write finds it done."""
    client = lake.client(retry_for_s=0.0)
    version = touch(client)
    os.kill(lake.writer_pid(), signal.SIGKILL)
    before = client.query("SELECT 1").version
    outcomes = []
    while "answered" not in outcomes and len(outcomes) < 100:
        outcomes.append(code_of(Asked(lambda: client.execute("INSERT INTO t VALUES (2)", wait_s=0.2)).outcome()))

    assert before < version
    assert outcomes[-1] == "answered", outcomes
    assert set(outcomes[:-1]) <= {"write_timed_out"}
    newest = client.execute("SELECT 1").version
    assert client.query("SELECT count(*) FROM t WHERE n = 2", at_least=newest).scalar() == 1
    assert client.query("SELECT max(x) - min(x) FROM big WHERE n % 499 = 0").scalar() == 0


def test_cancelled_write_ends_no_checkpoint(lake: KeeperProcess) -> None:
    """DELETE of a write that waits for a checkpoint drops the write."""
    client = lake.client(retry_for_s=0.0)
    touch(client)
    writer = lake.writer_pid()
    asked = Asked(lambda: client.execute("INSERT INTO t VALUES (3)"))
    for entry in wait_until(client.queries, what="the write"):
        client.cancel(entry["id"])

    assert code_of(asked.outcome()) == "query_cancelled"
    assert lake.writer_pid() == writer


def test_program_that_waits_for_the_lease_ends_no_checkpoint(lake: KeeperProcess) -> None:
    """While the writer publishes before it gives way to `pondkeeper run`, writes wait behind it and may give up."""
    client = lake.client(retry_for_s=0.0)
    touch(client)
    writer = lake.writer_pid()
    program = Asked(lambda: lake.cli("run", "--no-snapshot", "--", "sleep", "0.2"))
    wait_until(lambda: client.status("pond")["lease"]["waiting"] or program.is_done(), what="a ticket")
    outcome = code_of(Asked(lambda: client.execute("INSERT INTO t VALUES (4)", wait_s=0.2)).outcome())

    assert outcome in ("write_timed_out", "database_busy", "answered")
    assert program.outcome().returncode == 0
    assert client.execute("INSERT INTO t VALUES (5)").outcome == "committed"
    assert lake.writer_pid() == writer


@pytest.mark.timeout(150)
def test_writer_killed_in_a_checkpoint_loses_nothing(start_keeper: StartKeeper) -> None:
    """kill -9 in the middle of a long checkpoint, under load: everything acknowledged is there."""
    keeper = start_keeper()
    client = keeper.client()
    load = Load(keeper, 2)
    load.prepare()
    client.execute(fill())
    kills = 0
    with load:
        for longest_s in (0.02, 0.1, 0.2, 0.4):  # how long a checkpoint takes differs much between machines
            version = client.execute(TOUCH).version
            time.sleep(random.uniform(0.0, longest_s))
            kills += client.query("SELECT 1").version < version
            os.kill(keeper.writer_pid(), signal.SIGKILL)
            load.wait_commits(5)
    version = client.execute("SELECT 1").version
    [[least, most]] = client.query("SELECT min(x), max(x) FROM big WHERE n % 499 = 0", at_least=version).rows
    keeper.stop()

    assert kills, "the positive control: the writer was killed before the checkpoint was published"
    assert (least, most) == (4, 4)
    check(keeper.target, load)

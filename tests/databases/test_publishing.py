"""What is promised is published: across copiers that fail, hang or die, long checkpoints, and keepers that end meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.databases.fencing import of_copier
from pondkeeper.databases.registry import PRELOADING
from pondkeeper.errors import WorkerDied
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots import desk as copier_desk
from pondkeeper.snapshots.desk import ENTRY as COPIER
from pondkeeper.snapshots.desk import CopierDesk
from pondkeeper.snapshots.folders import COPIER_LOCK
from pondkeeper.workers.child import Child
from pondkeeper.workers.spawning import Template
from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess, program_environment, wait_until

pytestmark = pytest.mark.fault


def stop_publishing(keeper: KeeperProcess) -> FlockFile:
    """Keep every copier from working: another one (this test) holds the lock of the snapshots."""
    client = keeper.client()
    client.query("SELECT 1", at_least=client.execute("CREATE TABLE t AS SELECT 0 AS n").version)
    lock = FlockFile(keeper.database.snapshots / COPIER_LOCK)
    os.kill(keeper.children("copier")[0], signal.SIGKILL)
    wait_until(lock.try_acquire, what="the lock of the snapshots")
    return lock


@pytest.mark.parametrize("ending", ["kill -9", "SIGTERM"])
def test_promised_version_is_honoured_after_a_restart(start_keeper: StartKeeper, ending: str) -> None:
    """Commits go on while nothing can be published; what their answers promised holds after the end of the keeper."""
    keeper = start_keeper(None, "--grace", "2s")  # Why: it does not stop before that, since it cannot publish
    lock = stop_publishing(keeper)
    published = keeper.client().query("SELECT 1").version
    promised = 0
    for number in range(1, 100):
        promised = keeper.client().execute("INSERT INTO t VALUES (?)", [number]).version
        if promised >= published + 4:
            break
        time.sleep(0.05)
    problem = keeper.client().status("pond")["problem"]
    stale = keeper.client().query("SELECT max(n) FROM t").scalar()
    if ending == "kill -9":
        keeper.kill9()
    else:
        keeper.stop()
    lock.release()
    keeper.restart()

    assert promised >= published + 4
    assert problem is not None
    assert stale == 0  # the positive control: it was not published
    assert keeper.client().query("SELECT max(n) FROM t", at_least=promised, timeout_s=30).scalar() == number


def test_commits_are_published_when_the_copier_works_again(start_keeper: StartKeeper) -> None:
    """A publish that failed is tried again by itself: no further write is needed."""
    keeper = start_keeper()
    lock = stop_publishing(keeper)
    outcome = keeper.client().execute("INSERT INTO t VALUES (7)")
    wait_until(lambda: keeper.client().status("pond")["problem"], what="a problem in the status")
    lock.release()

    assert keeper.client().query("SELECT max(n) FROM t", at_least=outcome.version, timeout_s=30).scalar() == 7
    wait_until(lambda: keeper.client().status("pond")["problem"] is None, what="a status without a problem")


@contextlib.asynccontextmanager
async def copiers(*made: DatabasePaths) -> AsyncIterator[CopierDesk]:
    """A desk, and these databases with a table each."""
    for paths in made:
        with duckdb.connect(str(paths.file)) as connection:
            connection.execute("CREATE TABLE t AS FROM range(1000)")
        paths.snapshots.mkdir(parents=True)
    template = Template([PRELOADING, COPIER])
    desk = CopierDesk(template, of_copier)
    try:
        yield desk
    finally:
        await desk.stop()
        await template.stop()


def copier_of(desk: CopierDesk, paths: DatabasePaths) -> Child:
    child = desk._copiers[paths.snapshots]._child
    assert child is not None
    return child


@pytest.fixture
def pond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatabasePaths:
    monkeypatch.setenv("PYTHONPATH", program_environment()["PYTHONPATH"])
    return DatabasePaths(tmp_path / "pond.duckdb", tmp_path / ".pondkeeper")


async def test_hung_copier_is_noticed_and_replaced(pond: DatabasePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copier that shows no sign of work is killed, and the next publish is done by another; a busy one is left alone."""
    monkeypatch.setattr(copier_desk, "SILENCE_S", 0.5)
    async with copiers(pond) as desk:
        await desk.publish(pond, 1, 3, compare=False)
        copier = copier_of(desk, pond)
        os.kill(copier.pid, signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="did nothing"):
            await desk.publish(pond, 2, 3, compare=False)
        assert await copier.exited == -signal.SIGKILL
        report = await desk.publish(pond, 2, 3, compare=False)

    assert report["version"] == 2
    assert pond.published.resolve() == pond.snapshot(2).resolve()


async def test_no_database_waits_for_the_copy_of_another(pond: DatabasePaths) -> None:
    """Each has a copier of its own: while one is stopped in its work, the other's versions come out."""
    lake = DatabasePaths(pond.file.with_name("lake.duckdb"), pond.home)
    async with copiers(pond, lake) as desk:
        await desk.publish(pond, 1, 3, compare=False)
        os.kill(copier_of(desk, pond).pid, signal.SIGSTOP)
        waiting = asyncio.create_task(desk.publish(pond, 2, 3, compare=False))
        await desk.publish(lake, 1, 3, compare=False)
        assert not waiting.done()
        os.kill(copier_of(desk, pond).pid, signal.SIGCONT)
        assert (await waiting)["version"] == 2

    assert lake.published.resolve() == lake.snapshot(1).resolve()


async def test_a_copier_without_work_ends(pond: DatabasePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs memory for nothing; the next publish gets another."""
    monkeypatch.setattr(copier_desk, "IDLE_END_S", 0.1)
    async with copiers(pond) as desk:
        await desk.publish(pond, 1, 3, compare=False)
        await copier_of(desk, pond).exited
        assert (await desk.publish(pond, 2, 3, compare=False))["version"] == 2

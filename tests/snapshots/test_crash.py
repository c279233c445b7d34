"""A copier killed at any moment leaves whole versions and nothing else to see, and its successor goes on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import duckdb
import pytest

from pondkeeper.errors import DatabaseBusy, QueryCancelled
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.folders import visible_versions
from tests.snapshots.operators import CopierProcess, look, open_database, used_blocks_that_differ


@pytest.mark.fault
@pytest.mark.timeout(180)  # sixteen kills, each with a look from a fresh process
def test_kill_at_any_moment(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, start_copier: Callable[..., CopierProcess]
) -> None:
    """After kill -9 in mid-publish every visible version is what its writer had, and the next publish works."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    writer.execute("create table t as select range i, uuid() u from range(1500000)")
    writer.execute("create table state as select 0 v")
    copier = start_copier()
    answered, killed_before_answer = 0, 0
    for version in range(1, 17):
        writer.execute("update state set v = ?", [version])
        writer.execute("create or replace table part as select * from t using sample 10%")
        writer.execute("checkpoint")
        copier.send(copier.publish_message(version))
        time.sleep(chance.choice([0, chance.random() * 0.05, chance.random() * 0.2]))
        copier.kill()
        seen = visible_versions(paths.snapshots)
        answered += version in seen
        killed_before_answer += version not in seen
        for old in seen[-2:]:
            assert look(paths.snapshot(old), "select v from state") == [[old]], f"seed {seed}"
        copier = start_copier()
        if chance.random() < 0.7:
            assert copier.publish(version)["version"] == version, "the same version may be asked for again"
            assert look(paths.published, "select v from state") == [[version]], f"seed {seed}"
            assert copier.verify(paths.snapshot(version))["damaged"] == []
            assert len([entry for entry in paths.snapshots.iterdir() if entry.name.startswith(".private")]) <= 2
    assert killed_before_answer >= 2, f"the kills came too late: {killed_before_answer}, {answered}, seed {seed}"


def test_leftovers_of_a_dead_copier_are_removed(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, start_copier: Callable[..., CopierProcess]
) -> None:
    """Half-made folders go, and a snapshot that was being asked for is read-only again, before the first publish."""
    writer.execute("create table t as select 1 i")
    writer.execute("checkpoint")
    copier = start_copier(prepare=False)
    copier.publish(1)
    copier.publish(2)
    copier.kill()
    half_made = paths.snapshots / ".private-00000000"
    half_made.mkdir()
    (half_made / paths.file.name).write_bytes(b"half")
    paths.snapshot(1).chmod(0o600)
    start_copier(prepare=False).publish(3)
    assert not half_made.exists()
    assert paths.snapshot(2).stat().st_mode & 0o777 == 0o400
    assert all(paths.snapshot(seen).stat().st_mode & 0o777 == 0o400 for seen in visible_versions(paths.snapshots))


def test_the_copier_ends_with_its_keeper(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, start_copier: Callable[..., CopierProcess]
) -> None:
    """When the keeper's ends of the sockets close, the copier ends by itself, also in the middle of a copy."""
    writer.execute("create table t as select range i, uuid() u from range(1500000)")
    writer.execute("checkpoint")
    copier = start_copier()
    copier.send(copier.publish_message(1))
    time.sleep(0.02)
    copier.stop()
    assert copier.process.poll() is not None


def test_two_copiers_never_work_on_one_folder(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, start_copier: Callable[..., CopierProcess]
) -> None:
    """A second copier is refused while the first lives, and goes on when it is gone."""
    writer.execute("create table t as select 1 i")
    writer.execute("checkpoint")
    first, second = start_copier(), start_copier()
    first.publish(1)
    with pytest.raises(DatabaseBusy):
        second.publish(2)
    first.kill()
    assert second.publish(2)["version"] == 2


def test_a_cancelled_publish_changes_nothing(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, start_copier: Callable[..., CopierProcess]
) -> None:
    """The interrupt byte ends a copy between two blocks; nothing becomes visible, and the next publish works."""
    writer.execute("create table t as select range i, uuid() u, md5(range::varchar) s from range(1500000)")
    writer.execute("checkpoint")
    copier = start_copier(prepare=False)
    for version in range(1, 11):  # a copy may be over before we come to interrupt it
        copier.send(copier.publish_message(version))
        time.sleep(0.01)
        copier.interrupt()
        try:
            copier.answer()
        except QueryCancelled:
            break
        writer.execute("update t set u = uuid(), s = md5(s)")
        writer.execute("checkpoint")
    else:
        pytest.fail("it never was interrupted in its work")
    assert version not in visible_versions(paths.snapshots)
    assert look(copier.publish(version + 1)["path"], "select count(*) from t") == [[1500000]]


DIE_WRITING = """
import sys, time
from pathlib import Path
from pondkeeper.files.paths import Home
from tests.snapshots.operators import open_database
paths = Home(Path(sys.argv[1])).database(Path(sys.argv[2]))
c = open_database(paths)
c.execute("create table if not exists t(i bigint, u uuid, s varchar)")
print("on", flush=True)
while True:
    c.execute("insert into t select range, uuid(), md5(range::varchar) from range(130000)")
    c.execute("update t set u = uuid() where i % 1000 = 1")
    c.execute("delete from t where i % 7 = 3")
    if len(sys.argv) > 3:
        c.execute("checkpoint")
"""


@pytest.mark.fault
@pytest.mark.parametrize("checkpoints", [[], ["too"]], ids=["in a load", "in checkpoints"])
def test_a_writer_killed_at_any_moment(paths: DatabasePaths, copier: CopierProcess, checkpoints: list[str]) -> None:
    """After kill -9 of the writer, in a load or in a checkpoint, its successor's checkpoint is published exactly."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    methods = []
    for version in range(1, 9):
        command = [sys.executable, "-c", DIE_WRITING, str(paths.home), str(paths.file), *checkpoints]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert writer.stdout and writer.stdout.readline()
        time.sleep(chance.random() * 0.4)
        writer.kill()
        writer.communicate()
        successor = open_database(paths)
        successor.execute("checkpoint")
        answer = copier.publish(version)
        methods.append(answer["method"])
        assert used_blocks_that_differ(paths.file, answer["path"]) == [], f"seed {seed}, {methods}"
        expected = list(successor.execute("select count(*), sum(hash(i, u))::varchar from t").fetchall()[0])
        assert look(answer["path"], "select count(*), sum(hash(i, u))::varchar from t") == [expected], f"seed {seed}"
        successor.close()
    assert methods.count("difference") >= (0 if checkpoints else 3), methods

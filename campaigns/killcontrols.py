"""Planted faults: what a keeper without keys and one without fsync would do must be found by the very same look."""

from __future__ import annotations

import os
import shutil
import time

import duckdb

from campaigns.running import Stage
from campaigns.scene import Scene
from campaigns.striker import Striker
from campaigns.victims import VICTIMS
from pondkeeper.writer.lease import Lease
from tests.support.keeper import wait_until

DOUBLED_ROUNDS = 25
LOST_ROUNDS = 15
LEAST_WAL_BYTES = 500


def play(stage: Stage) -> None:
    """Each control on a scene of its own."""
    striker = Striker()
    try:
        _without_keys(stage, striker)
    finally:
        striker.close()
    _without_fsync(stage)
    _without_a_spool(stage)


def _without_keys(stage: Stage, striker: Striker) -> None:
    """Clients that send an unknown write again without a key: sooner or later one is applied twice."""
    found: list[str] = []
    with Scene(stage.room("control-without-keys"), keyed=False) as scene:
        for number in range(1, DOUBLED_ROUNDS + 1):
            scene.crowd.wait_commits(8)
            # Why the keeper: between a commit and its answer at the client there is more time than inside the writer.
            VICTIMS["keeper"].strike(scene, striker, "commit", 0.0003 * (number % 5))
            with scene.connect() as client:
                found = [text for text in scene.look(client) if text.startswith("applied twice")]
            if found:
                break
    stage.control("no idempotency keys: applied twice", found, rounds=number)


def _without_fsync(stage: Stage) -> None:
    """A power cut under a keeper that does not fsync: the end of the WAL is lost, and with it acknowledged writes."""
    found: list[str] = []
    with Scene(stage.room("control-without-fsync")) as scene:
        scene.crowd.wait_commits(50)
        for number in range(1, LOST_ROUNDS + 1):
            scene.crowd.wait_commits(30)
            time.sleep(0.002 * number)
            scene.keeper.kill9()
            cut = _cut_the_wal(scene)
            scene.keeper.launch()
            with scene.connect() as client:
                found = [text for text in scene.look(client) if "and lost" in text]
            if cut and found:
                break
    stage.control("no fsync and a power cut: acknowledged and lost", found, rounds=number)


def _without_a_spool(stage: Stage) -> None:
    """What a 202 before the fsync would cost: the spool's files are gone after the power cut."""
    with Scene(stage.room("control-without-spool"), loads=True) as scene:
        assert scene.spooler is not None
        assert scene.holders is not None
        lease = Lease(scene.keeper.database, who="campaign", why="keeps the spool from being applied")
        lease.acquire(60)
        told = scene.spooler.told
        try:
            scene.spooler.kill()
            accepted = len(told.accepted)
            scene.spooler.begin(only_spooled=True)
            wait_until(lambda: len(told.accepted) > accepted, timeout_s=60, what="a spooled load")
        finally:
            scene.keeper.kill9()
            lease.release()
        for path in scene.keeper.database.spool.rglob("*"):
            if path.is_file():
                path.unlink()
        scene.keeper.launch()
        found = [text for text in scene.look_at_the_end() if "and lost: load" in text]
    stage.control("a spool without fsync and a power cut: accepted and lost", found)


def _cut_the_wal(scene: Scene) -> bool:
    """Take the second half of the WAL away, where there is a WAL to speak of that DuckDB replays afterwards.

    Why the trial: in mid-checkpoint the mark that the WAL is done with stands at its end, and without it nothing opens.
    """
    wal, trial = scene.keeper.database.wal, scene.folder / "trial.duckdb"
    size_bytes = wal.stat().st_size if wal.exists() else 0
    if size_bytes < LEAST_WAL_BYTES:
        return False
    shutil.copyfile(scene.keeper.target, trial)
    shutil.copyfile(wal, f"{trial}.wal")
    os.truncate(f"{trial}.wal", size_bytes // 2)
    try:
        duckdb.connect(str(trial), read_only=True).close()
    except duckdb.Error:
        return False
    os.truncate(wal, size_bytes // 2)
    return True

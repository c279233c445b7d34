"""What killed processes have left is removed when a keeper starts; what somebody may still be making is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pondkeeper.databases.sweeping import STALE_AFTER_S, sweep
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import Home
from tests.support.keeper import KeeperProcess, wait_until


def left(file: Path, age_s: float) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def test_old_temporary_files_go_and_young_ones_stay(tmp_path: Path) -> None:
    paths = Home(tmp_path / ".pondkeeper").database(tmp_path / "w.duckdb")
    old = [left(folder / ".x.json.0123.tmp", STALE_AFTER_S + 60) for folder in (paths.home, paths.folder, paths.turn / "swaps" / "1")]
    young = left(paths.folder / ".y.json.0123.tmp", 1.0)
    others = left(tmp_path / ".z.json.0123.tmp", STALE_AFTER_S + 60)
    sweep(Home(paths.home), [paths])
    assert [file.exists() for file in (*old, young, others)] == [False, False, False, True, True]


def test_a_keeper_that_starts_removes_copies_that_nobody_makes_any_more(tmp_path: Path) -> None:
    """Beside the database, where `clone` and `export` work, and in the home."""
    dead = [left(folder / ".pondkeeper-making-0badc0de0bad" / "w.duckdb", 1.0).parent for folder in (tmp_path, tmp_path / ".pondkeeper")]
    alive = left(tmp_path / ".pondkeeper-making-0123456789ab" / "w.duckdb", 1.0).parent
    with FlockFile(alive / ".lock") as lock:
        assert lock.try_acquire()
        with KeeperProcess(tmp_path / "w.duckdb", "--readers", "1"):
            wait_until(lambda: not any(folder.exists() for folder in dead), what="the end of what the dead have left")
            assert alive.exists()

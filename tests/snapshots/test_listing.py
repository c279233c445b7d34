"""Listing: what there is, without DuckDB and without touching it."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pytest

from pondkeeper.errors import SnapshotNotFound
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.listing import list_snapshots, newest_snapshot, newest_version, snapshot_path
from tests.snapshots.operators import CopierProcess


def test_nothing_there(paths: DatabasePaths) -> None:
    """Without snapshots the list is empty and the path an error."""
    assert (list_snapshots(paths), newest_snapshot(paths), newest_version(paths)) == ([], None, 0)
    with pytest.raises(SnapshotNotFound):
        snapshot_path(paths)


def test_what_is_there(paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess) -> None:
    """Newest first, with size, age, method, path and who has it open; a lost manifest leaves the rest."""
    writer.execute("create table t as select 1 i")
    writer.execute("checkpoint")
    for version in (1, 2, 7):
        copier.publish(version)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(paths.snapshot(2))]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline()
    paths.manifest(1).write_text("{")
    found = list_snapshots(paths)
    holder.communicate(b"\n")
    assert [snapshot.version for snapshot in found] == [7, 2, 1]
    assert [[user.pid for user in snapshot.open_by] for snapshot in found] == [[], [holder.pid], []]
    assert [snapshot.method for snapshot in found][2] is None
    assert all(0 <= snapshot.age_s < 60 and snapshot.size_bytes == snapshot.path.stat().st_size for snapshot in found)
    assert (newest_version(paths), snapshot_path(paths), snapshot_path(paths, 2)) == (
        7,
        paths.snapshot(7),
        paths.snapshot(2),
    )
    with pytest.raises(SnapshotNotFound):
        snapshot_path(paths, 3)

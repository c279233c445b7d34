"""Who has a snapshot open keeps it: it is neither changed nor taken away, whatever program has it open."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.folders import visible_versions
from tests.snapshots.operators import CopierProcess, look

BY_DUCKDB = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(c.execute('select 1').fetchone())"
)
BY_BYTES = "import sys; f = open(sys.argv[1], 'rb'); print(len(f.read(1000)))"
BY_MAP = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); f.close(); print(m[0])"
WAIT = "\nsys.stdout.flush(); sys.stdin.read()"

Hold = Callable[[str, Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    holders = []

    def start(code: str, path: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code + WAIT, str(path)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holders.append(holder)
        assert holder.stdout and holder.stdout.readline(), "the holder did not start"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def release(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.communicate()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish_some(
    writer: duckdb.DuckDBPyConnection, copier: CopierProcess, versions: range, keep: int = 2
) -> list[dict[str, object]]:
    answers = []
    for version in versions:
        writer.execute("insert into t select range + ?, uuid() from range(2000)", [version * 10000])
        writer.execute("checkpoint")
        answers.append(copier.publish(version, keep))
    return answers


@pytest.mark.fault
@pytest.mark.parametrize("code", [BY_DUCKDB, BY_BYTES, BY_MAP], ids=["duckdb", "bytes", "map"])
def test_a_held_snapshot_is_never_changed(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess, hold: Hold, code: str
) -> None:
    """However it is held open, a snapshot stays and keeps its bytes; released, it is retired."""
    writer.execute("create table t(i bigint, u uuid)")
    publish_some(writer, copier, range(1, 3))
    held = paths.snapshot(1)
    holder = hold(code, held)
    before = digest(held)
    publish_some(writer, copier, range(3, 9))
    assert visible_versions(paths.snapshots) == [1, 7, 8]
    assert (digest(held), held.stat().st_mode & 0o777) == (before, 0o400)
    release(holder)
    publish_some(writer, copier, range(9, 15))
    assert visible_versions(paths.snapshots) == [13, 14]


@pytest.mark.fault
def test_files_are_reused_when_nobody_holds_them(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """The positive control of the holding tests: without holders the same few files serve all versions."""
    writer.execute("create table t(i bigint, u uuid)")
    inodes = set()
    for version in range(1, 11):
        publish_some(writer, copier, range(version, version + 1))
        inodes.add(paths.snapshot(version).stat().st_ino)
    assert len(inodes) <= 5


def test_a_snapshot_with_a_second_name_is_never_changed(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess, tmp_path: Path
) -> None:
    """A hard link that somebody made of a snapshot keeps its bytes after the version is retired."""
    writer.execute("create table t(i bigint, u uuid)")
    publish_some(writer, copier, range(1, 2))
    os.link(paths.snapshot(1), tmp_path / "kept.duckdb")
    before = digest(tmp_path / "kept.duckdb")
    publish_some(writer, copier, range(2, 10))
    assert visible_versions(paths.snapshots) == [8, 9]
    assert digest(tmp_path / "kept.duckdb") == before


def test_retire_takes_only_what_nobody_has_open(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess, hold: Hold
) -> None:
    """`retire` removes the oldest, keeps the newest `keep` and what is open, and finishes when that is closed."""
    writer.execute("create table t(i bigint, u uuid)")
    publish_some(writer, copier, range(1, 6), keep=5)
    holder = hold(BY_DUCKDB, paths.snapshot(2))
    assert copier.retire(2) == [1, 3]
    assert visible_versions(paths.snapshots) == [2, 4, 5]
    release(holder)
    assert copier.retire(2) == [2]
    assert copier.retire(0) == [4]
    assert look(paths.published, "select count(*) from t") == [[10000]]


def test_readers_of_the_link_never_see_less_than_before(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """A program that opens the link again and again while versions come and go sees every one whole, and never goes back.

    DuckDB follows the link before it opens the file; where three versions come in between, it says that there is no file,
    and the program opens the link again.
    """
    writer.execute("create table t(i bigint, u uuid)")
    publish_some(writer, copier, range(1, 2))
    code = (
        "import duckdb, sys\n"
        "last = 0\n"
        "print('on', flush=True)\n"
        "while True:\n"
        "    try: c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "    except duckdb.IOException as error:\n"
        "        if 'does not exist' in str(error): continue\n"
        "        raise\n"
        "    n, d = c.execute('select count(*), count(distinct i) from t').fetchone()\n"
        "    c.close()\n"
        "    assert n == d and n % 2000 == 0 and n >= last, (n, d, last)\n"
        "    last = n\n"
        "    if n == 40 * 2000: break\n"
    )
    command = [sys.executable, "-c", code, str(paths.published)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert reader.stdout and reader.stdout.readline()
    publish_some(writer, copier, range(2, 41), keep=3)
    _, errors = reader.communicate(timeout=80)
    assert reader.returncode == 0, errors

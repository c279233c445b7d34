"""A torn file is made whole from the newest snapshot, with every commit of its WAL; what cannot be is refused and left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pondkeeper.engine.fileformat import HEADER_BYTES, HEADERS_BYTES, read_block_use, read_headers
from pondkeeper.engine.opening import WriterConfig
from pondkeeper.engine.preimage import Preimage, keep_preimage
from pondkeeper.engine.walformat import read_wal
from pondkeeper.errors import DatabaseBusy, DatabaseUnreadable
from pondkeeper.files import swapping
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.copier import Copier
from pondkeeper.snapshots.repairing import mending
from pondkeeper.snapshots.repairing.report import WHY

BLOCK_BYTES = 262_144
TOTAL = "SELECT count(*), sum(x), bit_xor(hash(s))::VARCHAR FROM t"
Tear = Callable[[DatabasePaths], None]


def run(paths: DatabasePaths, *statements: str, checkpoint: bool = False) -> None:
    """Run statements, each its own commit; without `checkpoint` they stay in the WAL."""
    with duckdb.connect(str(paths.file), config={"storage_compatibility_version": "v1.5.0"}) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        for statement in statements:
            connection.execute(statement)
        if checkpoint:
            connection.execute("CHECKPOINT")


def content(file: Path) -> tuple[object, ...]:
    with duckdb.connect(str(file), read_only=True) as connection:
        row = connection.execute(TOTAL).fetchone()
    assert row is not None
    return row


def publish(paths: DatabasePaths, version: int) -> None:
    copier = Copier(paths.file, paths.snapshots, Cancelling())
    copier.publish(version, [paths.published], keep=3)
    copier.close()


def metadata_blocks(paths: DatabasePaths) -> list[int]:
    with paths.file.open("rb") as opened:
        use = read_block_use(opened.fileno(), read_headers(opened.fileno()))
    assert use is not None
    return sorted(use.metadata)


def overwrite(paths: DatabasePaths, at: int, data: bytes) -> None:
    with paths.file.open("r+b") as opened:
        os.pwrite(opened.fileno(), data, at)


def tear_metadata(paths: DatabasePaths) -> None:
    """Every metadata block: its first page is the new one, the rest the old."""
    for block in metadata_blocks(paths):
        overwrite(paths, HEADERS_BYTES + block * BLOCK_BYTES, os.urandom(HEADER_BYTES))


def tear_next_header(paths: DatabasePaths) -> None:
    """The slot that the next checkpoint writes: half of it."""
    with paths.file.open("rb") as opened:
        headers = read_headers(opened.fileno())
        os.lseek(opened.fileno(), 0, os.SEEK_SET)
        raw = os.read(opened.fileno(), HEADERS_BYTES)
    slot = 1 if raw[HEADER_BYTES : 2 * HEADER_BYTES] == headers.previous.raw else 2
    overwrite(paths, slot * HEADER_BYTES, os.urandom(512))


def tear_main_header(paths: DatabasePaths) -> None:
    overwrite(paths, 100, b"\xff" * 8)


def cut_short(paths: DatabasePaths) -> None:
    os.truncate(paths.file, HEADERS_BYTES + BLOCK_BYTES + 1_000)


@pytest.fixture
def pond(paths: DatabasePaths) -> DatabasePaths:
    """A database with a snapshot of its last checkpoint, and commits in the WAL since, some of them rows in the file."""
    make_folder(paths.turn)
    run(paths, "CREATE TABLE t AS SELECT range AS x, range::VARCHAR AS s FROM range(200000)", checkpoint=True)
    publish(paths, 1)
    run(paths, "INSERT INTO t SELECT range, 'more' FROM range(1000)", "UPDATE t SET s = 'changed' WHERE x = 7", checkpoint=True)
    publish(paths, 2)
    run(paths, "INSERT INTO t VALUES (1, 'one')", "INSERT INTO t SELECT range, 'bulk' FROM range(150000)")
    assert paths.wal.exists()
    return paths


def engine(paths: DatabasePaths) -> WriterConfig:
    temp = paths.turn / "temp"
    return WriterConfig(str(paths.file), 2**28, 2, str(temp), 2**30)


def look(paths: DatabasePaths, *, thorough: bool = False) -> dict[str, Any] | None:
    return mending.repair(paths, engine(paths), thorough=thorough)


def expected(paths: DatabasePaths, tmp_path: Path) -> tuple[object, ...]:
    """What a sound copy of file and WAL holds."""
    copy = tmp_path / "copy" / paths.file.name
    copy.parent.mkdir()
    for suffix in ("", ".wal"):
        copy.with_name(copy.name + suffix).write_bytes(paths.file.with_name(paths.file.name + suffix).read_bytes())
    return content(copy)


def test_a_sound_file_is_left_alone(pond: DatabasePaths) -> None:
    """No repair, no copy: inode, bytes and WAL stay."""
    before = pond.file.stat().st_ino, pond.file.read_bytes(), pond.wal.read_bytes()
    assert look(pond) is None
    assert look(pond, thorough=True) is None
    assert (pond.file.stat().st_ino, pond.file.read_bytes(), pond.wal.read_bytes()) == before


@pytest.mark.fault
@pytest.mark.parametrize("tear", [tear_metadata, tear_next_header, tear_main_header, cut_short])
def test_what_is_torn_comes_back_with_every_commit(pond: DatabasePaths, tmp_path: Path, tear: Tear) -> None:
    """The rows of file and WAL are all there, and the torn file with its WAL is kept as it was."""
    right, wal = expected(pond, tmp_path), pond.wal.read_bytes()
    tear(pond)
    torn = pond.file.read_bytes()
    with pytest.raises(duckdb.Error):  # the positive control: DuckDB cannot use it
        content(pond.file)
    done = look(pond, thorough=tear is cut_short)
    assert done is not None
    assert done["donor"] == "snapshot 2"
    assert done["blocks"] + done["headers"] > 0
    assert content(pond.file) == right
    assert not pond.wal.exists()
    kept = swapping.set_aside(pond, swapping.swaps(pond, WHY)[-1])
    assert [path.read_bytes() for path in kept] == [torn, wal]
    assert look(pond, thorough=True) is None


@pytest.mark.fault
def test_an_older_snapshot_gives_nothing(pond: DatabasePaths) -> None:
    """One of another checkpoint would give wrong rows: the file is refused, and stays as it is."""
    run(pond, "INSERT INTO t VALUES (2, 'two')", checkpoint=True)
    tear_metadata(pond)
    before = pond.file.read_bytes()
    with pytest.raises(DatabaseUnreadable, match="no copy of its last checkpoint"):
        look(pond)
    assert pond.file.read_bytes() == before
    assert list((pond.turn / "swaps").glob("*")) == []


@pytest.mark.fault
def test_what_was_kept_before_the_checkpoint_will_do(pond: DatabasePaths, tmp_path: Path) -> None:
    """Where no snapshot is of the file as it is, the writer keeps what a checkpoint rewrites in place."""
    run(pond, "INSERT INTO t VALUES (2, 'two')", checkpoint=True)
    keep_preimage(pond.file, pond.preimage, pond.snapshots)
    run(pond, "INSERT INTO t VALUES (3, 'three')")
    right = expected(pond, tmp_path)
    tear_metadata(pond)
    done = look(pond)
    assert done is not None
    assert done["donor"] == "what was kept before the checkpoint"
    assert content(pond.file) == right


def test_nothing_is_kept_where_the_newest_snapshot_is_the_file(pond: DatabasePaths) -> None:
    """The usual case costs two reads."""
    keep_preimage(pond.file, pond.preimage, pond.snapshots)
    assert not pond.preimage.exists()
    keep_preimage(pond.file, pond.preimage, pond.snapshots / "nowhere")
    image = Preimage.read(pond.preimage)
    assert image is not None
    assert sorted(image.blocks) == metadata_blocks(pond)


def test_an_image_that_is_not_whole_is_none(pond: DatabasePaths) -> None:
    """One flipped bit in it is noticed."""
    keep_preimage(pond.file, pond.preimage, pond.snapshots / "nowhere")
    data = bytearray(pond.preimage.read_bytes())
    for at in (0, 40, 500, len(data) // 2, len(data) - 1):
        data[at] ^= 4
        assert Preimage.decode(bytes(data)) is None
        data[at] ^= 4
    assert Preimage.decode(bytes(data)) is not None


@pytest.mark.fault
def test_damage_that_the_snapshot_shares_is_refused(pond: DatabasePaths) -> None:
    """A donor gives only blocks that carry their checksum."""
    snapshot = pond.snapshot(2)
    snapshot.chmod(0o600)
    [block, *_] = metadata_blocks(pond)
    at = HEADERS_BYTES + block * BLOCK_BYTES + 5_000
    overwrite(pond, at, os.urandom(64))
    with snapshot.open("r+b") as opened:
        os.pwrite(opened.fileno(), os.urandom(64), at)
    with pytest.raises(DatabaseUnreadable):
        look(pond)


@pytest.mark.fault
@pytest.mark.parametrize("tail", [bytes(4_096), os.urandom(300), b"\x09" + bytes(15)], ids=["zeros", "noise", "half an entry"])
def test_the_torn_end_of_a_wal_is_cut_off(pond: DatabasePaths, tmp_path: Path, tail: bytes) -> None:
    """What was acknowledged is before it; the WAL as it was is kept."""
    right = expected(pond, tmp_path)
    whole = pond.wal.read_bytes()
    pond.wal.write_bytes(whole + tail)
    done = look(pond)
    assert done is not None
    assert (done["wal_bytes_cut"], done["donor"]) == (len(tail), None)
    assert pond.wal.read_bytes() == whole
    assert pond.cut_wal.read_bytes() == whole + tail
    assert content(pond.file) == right


@pytest.mark.fault
def test_a_wal_that_never_had_a_whole_commit_goes(pond: DatabasePaths) -> None:
    """Its first entry was not acknowledged, so nothing was; DuckDB 1.5 would not open the file."""
    right = content(pond.snapshot(2))
    pond.wal.write_bytes(bytes(4_096))
    assert look(pond) is not None
    assert not pond.wal.exists()
    assert content(pond.file) == right


@pytest.mark.fault
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_bit_flipped_in_the_wal_is_noticed(pond: DatabasePaths, share: float) -> None:
    """DuckDB would drop every commit behind it without a word; those were acknowledged."""
    run(pond, *(f"INSERT INTO t VALUES ({number}, 'x')" for number in range(50)))
    data = bytearray(pond.wal.read_bytes())
    data[60 + int(share * (len(data) - 60))] ^= 1
    pond.wal.write_bytes(data)
    with pytest.raises(DatabaseUnreadable, match="WAL is damaged"):
        look(pond)
    assert pond.wal.read_bytes() == data


def test_nobody_looks_at_a_file_that_is_open(pond: DatabasePaths) -> None:
    """A checkpoint may be half way through, which is no damage."""
    import subprocess
    import sys

    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    command = [sys.executable, "-c", code, str(pond.file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(DatabaseBusy):
            look(pond)
        holder.communicate(b"\n", timeout=60)


def test_wal_states(pond: DatabasePaths) -> None:
    """Every entry that DuckDB writes carries a checksum that we know; cut anywhere, the whole ones are before the cut."""
    whole = pond.wal.read_bytes()
    state = read_wal(pond.wal)
    assert state.is_whole
    assert state.size_bytes == len(whole)
    for length in range(45, len(whole), max(1, len(whole) // 40)):
        pond.wal.write_bytes(whole[:length])
        state = read_wal(pond.wal)
        assert state.whole_bytes <= length
        assert not state.lost_commits

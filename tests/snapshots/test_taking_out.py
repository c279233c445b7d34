"""A snapshot taken out into a file of its own: each bit that the database uses is proved on its way."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.fileformat import (
    HEADER_BYTES,
    HEADERS_BYTES,
    BlockUse,
    block_offset,
    read_block_use,
    read_headers,
)
from pondkeeper.errors import DatabaseUnreadable
from pondkeeper.snapshots import taking_out
from pondkeeper.snapshots.taking_out import take_out

ROWS = "SELECT count(*), sum(hash(x))::VARCHAR, max(y) FROM t"
FLIPS = 60


@pytest.fixture(scope="module", params=[262_144, 16_384])
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with blocks in use, free ones among them, and some of metadata."""
    file = tmp_path_factory.mktemp("taking_out") / "pond.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{file}' AS pond (BLOCK_SIZE {request.param})")
        connection.execute("USE pond")
        connection.execute("CREATE TABLE gone AS SELECT hash(range) AS x FROM range(100_000)")
        connection.execute("CREATE TABLE t AS SELECT hash(range) AS x, 'row ' || range AS y FROM range(200_000)")
        connection.execute("CHECKPOINT")
        connection.execute("DROP TABLE gone")
        connection.execute("CHECKPOINT")
    return file


def use_of(file: Path) -> tuple[BlockUse, int]:
    with file.open("rb") as opened:
        headers = read_headers(opened.fileno())
        use = read_block_use(opened.fileno(), headers)
    assert use is not None
    return use, headers.active.block_size_bytes


def taken_out(file: Path, target: Path) -> Path:
    with file.open("rb") as source, target.open("w+b") as made:
        take_out(source.fileno(), made.fileno(), lambda done, of: None)
    return target


def flipped(snapshot: Path, folder: Path, bit: int) -> Path:
    file = folder / "flipped.duckdb"
    contents = bytearray(snapshot.read_bytes())
    contents[bit // 8] ^= 1 << bit % 8
    file.write_bytes(contents)
    return file


def bits_of_used_blocks(snapshot: Path, chance: random.Random) -> list[int]:
    """The first and the last bit of some blocks in use, and any between; the first and the last block among them."""
    use, size_bytes = use_of(snapshot)
    used = [block for block in range(use.block_count) if use.is_used(block)]
    blocks = [used[0], used[-1], *chance.choices(used, k=FLIPS // 3)]
    ends = [8 * block_offset(block, size_bytes) + bit for block in blocks for bit in (0, 8 * size_bytes - 1)]
    return ends + [8 * block_offset(block, size_bytes) + chance.randrange(8 * size_bytes) for block in blocks]


def test_what_comes_out_is_what_was_there(snapshot: Path, tmp_path: Path) -> None:
    """Headers and blocks in use byte by byte, and no more; what is free holds nothing."""
    file = taken_out(snapshot, tmp_path / "out.duckdb")
    use, size_bytes = use_of(snapshot)
    assert use.free
    before, after = snapshot.read_bytes(), file.read_bytes()
    assert len(after) == block_offset(use.block_count, size_bytes)
    assert before[:HEADERS_BYTES] == after[:HEADERS_BYTES]
    for block in range(use.block_count):
        at = slice(block_offset(block, size_bytes), block_offset(block + 1, size_bytes))
        assert after[at] == (before[at] if use.is_used(block) else bytes(size_bytes))
    with duckdb.connect(str(snapshot), read_only=True) as there, duckdb.connect(str(file)) as here:
        assert here.execute(ROWS).fetchall() == there.execute(ROWS).fetchall()
        here.execute("INSERT INTO t SELECT hash(range), 'new' FROM range(100_000)")


def test_progress_ends_with_all(snapshot: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with snapshot.open("rb") as source, (tmp_path / "out").open("w+b") as made:
        take_out(source.fileno(), made.fileno(), lambda done, of: told.append((done, of)))
    use, size_bytes = use_of(snapshot)
    assert told[-1] == ((use.block_count - len(use.free)) * size_bytes,) * 2
    assert told == sorted(told)


@pytest.mark.fault
def test_a_flipped_bit_is_noticed_anywhere(snapshot: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    for bit in [*bits_of_used_blocks(snapshot, chance), *(8 * HEADER_BYTES * part + chance.randrange(8 * HEADER_BYTES) for part in range(3))]:
        with pytest.raises(DatabaseUnreadable):
            taken_out(flipped(snapshot, tmp_path, bit), tmp_path / "out")


@pytest.mark.fault
def test_without_the_check_it_would_not_be(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test before: there is nothing else that refuses, and the damage would be in the file."""
    use, size_bytes = use_of(snapshot)
    block = max(set(range(use.block_count)) - use.free - use.metadata)
    bit = 8 * block_offset(block, size_bytes) + 777
    monkeypatch.setattr(taking_out, "is_whole", lambda data, of: True)
    file = taken_out(flipped(snapshot, tmp_path, bit), tmp_path / "out")
    assert file.read_bytes()[bit // 8] != snapshot.read_bytes()[bit // 8]


@pytest.mark.fault
def test_what_was_checked_is_what_is_written(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives other bytes each time it is asked: no byte is written that was not in the buffer that was checked."""
    read: Callable[..., int] = os.preadv
    asked: list[int] = []

    def fickle(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        got = read(descriptor, buffers, offset)
        asked.append(offset)
        if asked.count(offset) > 1:
            buffers[0][got // 2] ^= 1
        return got

    monkeypatch.setattr("os.preadv", fickle)
    file = taken_out(snapshot, tmp_path / "out.duckdb")
    monkeypatch.undo()
    assert file.read_bytes() == taken_out(snapshot, tmp_path / "again.duckdb").read_bytes()
    assert len(asked) == len(set(asked))


def test_a_snapshot_that_is_too_short_is_refused(snapshot: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.duckdb"
    file.write_bytes(snapshot.read_bytes()[: block_offset(max(use_of(snapshot)[0].metadata), use_of(snapshot)[1])])
    with pytest.raises(DatabaseUnreadable):
        taken_out(file, tmp_path / "out")

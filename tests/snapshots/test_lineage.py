"""What may be concluded from two observations, what may not, and the fast look at all checksums."""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pondkeeper.engine.fileformat import HEADERS_BYTES, block_offset
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.checksums import ChecksumMap
from pondkeeper.snapshots.lineage import written_between
from pondkeeper.snapshots.source import Observation, Source
from tests.snapshots.operators import open_database

BLOCK = 16384


@pytest.fixture
def observations(paths: DatabasePaths) -> list[Observation]:
    """A database after each of four checkpoints, the last two of the same state; observed while it is closed."""
    found = []
    for statement in (
        "create table t as select range i, uuid() u from range(300000)",
        "update t set u = uuid()",
        "",
        "",
    ):
        with contextlib.closing(open_database(paths)) as connection:
            if statement:
                connection.execute(statement)
            connection.execute("checkpoint")
        source = Source(paths.file)
        with source.open():
            found.append(source.observe())
    return found


def test_one_checkpoint_is_followed(observations: list[Observation]) -> None:
    """After one checkpoint the blocks written are known; after none there are none."""
    first, second, third, fourth = observations
    written = written_between(first, second)
    assert written and all(second.use is not None and second.use.is_used(block) for block in written)
    assert written_between(third, fourth) == set()


def test_what_does_not_follow_is_not_known(observations: list[Observation]) -> None:
    """Nothing before, a gap, going back, another file, another identity or an unknown format: no conclusion."""
    first, second, third, _ = observations
    unknown = [
        (None, second),
        (second, first),
        (replace(first, inode=(1, 1)), second),
        (replace(first, headers=replace(first.headers, identity=b"x" * 16)), second),
        (replace(first, use=None), second),
        (first, replace(second, use=None)),
    ]
    if third.headers.active.iteration - first.headers.active.iteration == 2:
        unknown.append((first, third))
    assert [written_between(before, now) for before, now in unknown] == [None] * len(unknown)


def test_a_change_that_should_not_be_ends_the_conclusion(observations: list[Observation]) -> None:
    """The second net: a used block, not said to be written, whose checksum changed all the same."""
    first, second, *_ = observations
    written = written_between(first, second)
    assert written is not None and second.use is not None
    quiet = next(block for block in second.used if block not in written and block not in second.metadata)
    changed = bytearray(second.checksums)
    changed[8 * quiet] ^= 1
    assert written_between(first, replace(second, checksums=bytes(changed))) is None


def read_plainly(path: Path, count: int) -> bytes:
    data = path.read_bytes()
    whole = min(count, (len(data) - HEADERS_BYTES) // BLOCK)
    return b"".join(data[block_offset(block, BLOCK) :][:8] for block in range(whole))


@pytest.mark.parametrize("mapped", [True, False])
def test_all_checksums_of_a_file_that_grows_shrinks_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool
) -> None:
    """Always what plain reading gives, also across the borders of the maps and where nothing can be mapped."""
    monkeypatch.setattr("pondkeeper.snapshots.checksums._PIECE_BYTES", 4 * BLOCK)
    if not mapped:
        monkeypatch.setattr("mmap.mmap", lambda *_, **__: (_ for _ in ()).throw(OSError("no address space")))
    path, checksums = tmp_path / "file", ChecksumMap()
    for blocks in (1, 3, 4, 5, 20, 19, 8, 9, 0, 13):
        if blocks == 8:
            path.unlink()
        path.write_bytes(random.randbytes(HEADERS_BYTES + blocks * BLOCK + random.choice([0, 5000])))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            for count in (blocks, blocks + 3, max(0, blocks - 1)):
                assert checksums.read(descriptor, count, BLOCK) == read_plainly(path, count), (blocks, count)
        finally:
            os.close(descriptor)
    checksums.forget()

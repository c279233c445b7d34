"""DuckDB's file format from bytes: what is recognised, what is refused, and what a checksum does not prove."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import (
    HEADER_BYTES,
    HEADERS_BYTES,
    BlockUse,
    Headers,
    block_offset,
    checksum,
    is_whole,
    parse_headers,
    read_block_use,
    read_headers,
)
from pondkeeper.errors import DatabaseEncrypted, DatabaseUnreadable, PondkeeperError


def make_database(path: Path, options: str = "", checkpoints: int = 3) -> Path:
    """A closed database with used, free and metadata blocks."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS d {options}")
        connection.execute("USE d")
        for number in range(checkpoints):
            connection.execute(f"CREATE OR REPLACE TABLE t{number % 2} AS SELECT range i, uuid() u FROM range(200000)")
            connection.execute("CHECKPOINT d")
    return path


def examine(path: Path) -> tuple[Headers, BlockUse | None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        headers = read_headers(descriptor)
        return headers, read_block_use(descriptor, headers)
    finally:
        os.close(descriptor)


def rewrite(path: Path, offset: int, data: bytes, *, header: int | None = None) -> None:
    """Change bytes of a file; with `header`, put that header's checksum right again."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        if header is not None:
            file.seek(HEADER_BYTES * header)
            payload = file.read(HEADER_BYTES)[8:]
            file.seek(HEADER_BYTES * header)
            file.write(struct.pack("<Q", checksum(payload)))


@pytest.mark.parametrize("storage_version", ["v1.0.0", "v1.2.0", "v1.3.0", "v1.4.0", "v1.5.0", "latest"])
@pytest.mark.parametrize("block_size", [16384, 262144])
def test_headers_and_block_use(tmp_path: Path, storage_version: str, block_size: int) -> None:
    """Counts, sizes and free blocks are what DuckDB itself says of the file; every used block is whole."""
    path = make_database(tmp_path / "d.duckdb", f"(storage_version '{storage_version}', block_size {block_size})")
    headers, use = examine(path)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS d (READ_ONLY)")
        connection.execute("USE d")
        row = connection.execute("SELECT block_size, total_blocks, free_blocks FROM pragma_database_size()").fetchone()
        metadata = {block for (block,) in connection.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()}
    assert use is not None
    assert row == (headers.active.block_size_bytes, use.block_count, len(use.free))
    assert (use.metadata, use.block_count) == (metadata, headers.active.block_count)
    assert headers.is_known and headers.active.iteration == headers.previous.iteration + 1
    assert len(use.free) > 0
    data = path.read_bytes()
    for block in filter(use.is_used, range(use.block_count)):
        start = block_offset(block, block_size)
        assert is_whole(data[start : start + block_size], block_checksum)


def test_both_checksums_agree() -> None:
    """The vectorised checksum gives what the plain one gives, for any length that is a multiple of 8."""
    chance = random.Random(1)
    for words in [0, 1, 2, 3, 7, 511, 2047, 32767]:
        data = chance.randbytes(8 * words)
        assert block_checksum(data) == checksum(data), words
        assert block_checksum(memoryview(data)) == checksum(bytearray(data))


def test_an_equal_checksum_proves_nothing() -> None:
    """DuckDB's checksum is blind to the order of words and to pairs of equal words: the reason for `BlockUse`."""
    words = [struct.pack("<Q", number) for number in (11, 22, 33, 44)]
    assert checksum(b"".join(words)) == checksum(b"".join(reversed(words)))
    assert checksum(words[0] * 2) == checksum(words[1] * 2)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "not a DuckDB database", id="empty"),
        pytest.param(lambda path: path.write_bytes(os.urandom(50000)), "not a DuckDB database", id="garbage"),
        pytest.param(lambda path: path.write_bytes(b"PAR1" * 5000), "not a DuckDB database", id="parquet"),
        pytest.param(lambda path: os.truncate(path, 6000), "truncated", id="within the headers"),
        pytest.param(lambda path: os.truncate(path, 12288 + 262144 * 3), "truncated|damaged", id="within the blocks"),
        pytest.param(lambda path: rewrite(path, HEADER_BYTES + 100, b"x"), "header .* damaged", id="header"),
        pytest.param(lambda path: rewrite(path, 60, b"x"), "header .* damaged", id="main header"),
        pytest.param(lambda path: rewrite_list(path), "free blocks .* is damaged", id="list of blocks"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, damage: Callable[[Path], object], expected: str) -> None:
    """Each kind of damage is an error that says what is wrong and names no path."""
    path = make_database(tmp_path / "d.duckdb")
    damage(path)
    with pytest.raises(DatabaseUnreadable, match=expected) as caught:
        examine(path)
    assert str(tmp_path) not in caught.value.message


def rewrite_list(path: Path) -> None:
    header = examine(path)[0].active
    block = header.free_list & ((1 << 56) - 1)
    rewrite(path, block_offset(block, header.block_size_bytes) + 1000, os.urandom(8))


def test_an_encrypted_file_is_named_as_such(tmp_path: Path) -> None:
    """The flag of encryption is seen before anything else of the file is believed."""
    path = make_database(tmp_path / "d.duckdb")
    rewrite(path, 20, struct.pack("<Q", 1), header=0)
    with pytest.raises(DatabaseEncrypted):
        examine(path)


def test_an_unknown_storage_version_is_not_interpreted(tmp_path: Path) -> None:
    """Of a version that we have not tested nothing but the version is believed: no block use, and no guess."""
    path = make_database(tmp_path / "d.duckdb")
    rewrite(path, 12, struct.pack("<Q", 777), header=0)
    headers, use = examine(path)
    assert (headers.storage_version, headers.is_known, use) == (777, False, None)


def test_reserved_blocks_beyond_the_end_are_no_truncation() -> None:
    """A file may lack blocks that its header counts as free, and only those."""
    use = BlockUse(10, frozenset({8, 9}), frozenset({0}))
    assert [use.is_used(block) for block in (0, 7, 8, 10, -1)] == [True, True, False, False, False]


def test_what_a_checkpoint_may_have_written() -> None:
    """Blocks that were free or did not exist, and metadata; not those that were in use or are free now."""
    before = BlockUse(6, frozenset({1, 2}), frozenset({0}))
    now = BlockUse(8, frozenset({2, 3, 7}), frozenset({0, 5}))
    assert now.written_since(before) == {0, 1, 5, 6}


def test_random_bytes_never_crash_the_parser(tmp_path: Path) -> None:
    """A file with random changes is read or refused, and nothing else happens; the seed is in the message."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    path = make_database(tmp_path / "d.duckdb", "(block_size 16384)", checkpoints=2)
    whole = path.read_bytes()
    for _ in range(60):
        changed = bytearray(whole)
        for _ in range(chance.choice([1, 5, 50])):
            changed[chance.randrange(HEADERS_BYTES + 40000)] = chance.randrange(256)
        path.write_bytes(changed[: chance.choice([len(changed), chance.randrange(len(changed))])])
        try:
            examine(path)
            parse_headers(bytes(changed[:HEADERS_BYTES]))
        except PondkeeperError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error

"""The traps of copying blocks: equal checksums of different blocks, blocks that are being written, damaged files."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.fileformat import block_offset, checksum, read_block_use, read_headers
from pondkeeper.errors import DatabaseEncrypted, DatabaseUnavailable, DatabaseUnreadable
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots import source as source_module
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.difference import bring_up
from pondkeeper.snapshots.folders import visible_versions
from pondkeeper.snapshots.source import Observation, Source
from pondkeeper.snapshots.target import Target
from tests.snapshots.operators import CopierProcess, look, open_database

BY_CHECKSUM = """
import os, sys
from pondkeeper.engine.fileformat import *
a, b = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
header = read_headers(a).active
for block in range(header.block_count):
    at = block_offset(block, header.block_size_bytes)
    if os.pread(a, 8, at) != os.pread(b, 8, at):
        os.pwrite(b, os.pread(a, header.block_size_bytes, at), at)
os.pwrite(b, os.pread(a, HEADERS_BYTES, 0), 0)
os.ftruncate(b, header.size_bytes)
"""
VALUES = "select md5(string_agg(id || ':' || v, ',' order by id)) from t"
SWAP = "update t set v = (select x.v from t x where x.id = case t.id when $a then $b else $a end) where id in ($a, $b)"


def make_closed(paths: DatabasePaths, rows: int = 200000) -> None:
    """A closed database whose file this process may read: with used and with free blocks."""
    with contextlib.closing(open_database(paths)) as connection:
        for name in ("t", "gone", "t"):
            connection.execute(f"create or replace table {name} as select range id, uuid() v from range({rows})")
            connection.execute("checkpoint")
        connection.execute("drop table gone")
        connection.execute("checkpoint")


def observe(source: Source) -> Observation:
    with source.open():
        return source.observe()


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def make_target(paths: DatabasePaths, now: Observation) -> Target:
    paths.snapshots.mkdir(parents=True, exist_ok=True)
    return Target.create(paths.snapshots, paths.file.name, now.block_count)


@pytest.mark.fault
@pytest.mark.parametrize("value", ["uuid()", "hash(range)", "to_days((range * 7919 % 1000)::int)"])
def test_comparing_checksums_alone_gives_wrong_rows(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess, value: str
) -> None:
    """The positive control of the method: a difference of checksums alone loses swapped values, ours does not."""
    writer.execute(f"create table t as select range id, {value} v from range(12000)")
    writer.execute("checkpoint")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    wrong = 0
    for version in range(1, 6):
        writer.execute(SWAP, {"a": version * 10 + 3, "b": version * 10 + 5})
        writer.execute("checkpoint")
        naive = paths.file.parent / f"naive{version % 2}.duckdb"
        subprocess.run([sys.executable, "-c", BY_CHECKSUM, str(paths.file), str(naive)], check=True, env=environment)
        ours = Path(copier.publish(version)["path"])
        expected = [list(writer.execute(VALUES).fetchall()[0])]
        wrong += look(naive, VALUES) != expected
        assert look(ours, VALUES) == expected
    assert wrong >= 2


@pytest.mark.fault
def test_a_block_that_is_being_written_is_read_again(paths: DatabasePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a block in the file: without the check it is copied and stays so; with it the copy waits for the other half."""
    make_closed(paths)
    source = Source(paths.file)
    now = observe(source)
    block, size = max(set(now.used) - set(now.metadata)), now.block_size_bytes
    middle = block_offset(block, size) + size // 2
    whole = paths.file.read_bytes()
    tail = whole[middle : middle + size // 2]

    def complete_later(_: float) -> None:
        patch(paths.file, middle, tail)

    for verify in (False, True):
        patch(paths.file, middle, bytes(len(tail)))
        monkeypatch.setattr(source_module.time, "sleep", complete_later)
        source.verify = verify
        target = make_target(paths, now)
        with source.open():
            bring_up(source, target, now, Cancelling())
        copied = target.read(size, block_offset(block, size))
        assert (copied == whole[block_offset(block, size) : block_offset(block + 1, size)]) is verify
        target.discard()


@pytest.mark.fault
def test_a_free_block_may_hold_anything(paths: DatabasePaths, copier: CopierProcess) -> None:
    """Free blocks torn by a load in progress are not copied, and do no harm when they are taken into use later."""
    make_closed(paths)
    now = observe(Source(paths.file))
    assert now.use is not None and len(now.use.free) > 3
    for version in range(1, 5):
        for block in sorted(now.use.free)[:4]:
            patch(paths.file, block_offset(block, now.block_size_bytes) + 8 * version, os.urandom(1000))
        answer = copier.publish(version)
        assert copier.verify(Path(answer["path"]))["damaged"] == []
    with contextlib.closing(open_database(paths)) as connection:
        connection.execute("create table filled as select range id, uuid() v from range(400000)")
        connection.execute("checkpoint")
        expected = [list(connection.execute("select sum(hash(id, v))::varchar from filled").fetchall()[0])]
        answer = copier.publish(5)
    assert answer["method"] == "difference"
    assert look(Path(answer["path"]), "select sum(hash(id, v))::varchar from filled") == expected
    assert copier.verify(Path(answer["path"]))["damaged"] == []


@pytest.mark.fault
def test_a_damaged_block_is_never_published(paths: DatabasePaths, copier: CopierProcess) -> None:
    """A used block with a wrong checksum ends the publish with its number; verify names it; mended, all goes on."""
    make_closed(paths)
    now = observe(Source(paths.file))
    block = max(set(now.used) - set(now.metadata))
    at = block_offset(block, now.block_size_bytes) + 5000
    good = paths.file.read_bytes()[at : at + 8]
    patch(paths.file, at, bytes(byte ^ 255 for byte in good))
    with pytest.raises(DatabaseUnreadable) as caught:
        copier.publish(1)
    assert caught.value.details["block"] == block
    assert visible_versions(paths.snapshots) == []
    assert copier.verify(paths.file)["damaged"] == [block]
    patch(paths.file, at, good)
    assert copier.verify(paths.file)["damaged"] == []
    assert look(Path(copier.publish(1)["path"]), "select count(*) from t") == [[200000]]


def seal(path: Path, header: int) -> None:
    data = path.read_bytes()[4096 * header + 8 : 4096 * (header + 1)]
    patch(path, 4096 * header, struct.pack("<Q", checksum(data)))


def test_bad_files_are_errors_and_the_snapshots_stay(paths: DatabasePaths, copier: CopierProcess) -> None:
    """Whatever lies where the database was: a clear error, the published snapshot untouched, and work goes on after."""
    make_closed(paths)
    good = paths.file.read_bytes()
    copier.publish(1)
    encrypted = bytearray(good)
    encrypted[20:28] = struct.pack("<Q", 1)
    cases = [
        (b"", DatabaseUnreadable),
        (b"id,name\n1,x\n" * 10000, DatabaseUnreadable),
        (good[:5000], DatabaseUnreadable),
        (good[: len(good) // 2], DatabaseUnreadable),
        (good[:4096] + os.urandom(8192) + good[12288:], DatabaseUnreadable),
        (bytes(encrypted), DatabaseEncrypted),
    ]
    for data, expected in cases:
        paths.file.write_bytes(data)
        with pytest.raises(expected) as caught:
            copier.publish(2)
        assert str(paths.file) not in caught.value.message + caught.value.remedy
        assert look(paths.published, "select count(*) from t") == [[200000]]
    paths.file.unlink()
    with pytest.raises(DatabaseUnavailable):
        copier.publish(2)
    paths.file.write_bytes(good)
    assert look(Path(copier.publish(2)["path"]), "select count(*) from t") == [[200000]]
    assert visible_versions(paths.snapshots) == [1, 2]


def test_an_unknown_storage_version_is_copied_whole(paths: DatabasePaths, copier: CopierProcess) -> None:
    """A file of a version that we have not tested is copied as it is, every time: nothing about its blocks is assumed."""
    make_closed(paths)
    patch(paths.file, 12, struct.pack("<Q", 777))
    seal(paths.file, 0)
    for version in range(1, 5):
        answer = copier.publish(version, keep=2)
        assert answer["method"] == "full"
        assert Path(answer["path"]).read_bytes() == paths.file.read_bytes()
    assert visible_versions(paths.snapshots) == [3, 4]


def test_a_shrinking_database(paths: DatabasePaths, copier: CopierProcess) -> None:
    """When the file becomes shorter its snapshots do, also those made of older, longer ones."""
    with contextlib.closing(open_database(paths)) as connection:
        sizes = []
        for version in range(1, 9):
            connection.execute("create or replace table big as select range i, uuid() u from range(600000)")
            if version % 2 == 0:
                connection.execute("drop table big")
            connection.execute(f"create or replace table small as select {version} v")
            connection.execute("checkpoint")
            answer = copier.publish(version, keep=2)
            sizes.append(answer["size_bytes"])
            assert look(Path(answer["path"]), "select v from small") == [[version]]
            assert Path(answer["path"]).stat().st_size == answer["size_bytes"]
    assert min(sizes[2:]) < max(sizes) * 0.6


def test_the_lists_that_the_traps_rest_on(paths: DatabasePaths) -> None:
    """A closed database of ours has free, used and metadata blocks: without them these tests would test nothing."""
    make_closed(paths)
    descriptor = os.open(paths.file, os.O_RDONLY)
    use = read_block_use(descriptor, read_headers(descriptor))
    os.close(descriptor)
    assert use is not None and use.free and use.metadata and use.block_count > len(use.free) + 5

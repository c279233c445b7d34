"""What one version costs, what it says of the file, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pondkeeper.archive.history import Archived, newest, read_archived, version_numbered, versions
from pondkeeper.archive.names import BLOCKS, PAGES, block_name
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.pruning import remove_versions
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.tree import BLOCK_BYTES, PAGE_BLOCKS
from pondkeeper.archive.writing import About, write_version
from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import HEADERS_BYTES, read_block_use, read_headers
from pondkeeper.errors import ArchiveConflict, DatabaseUnreadable, QueryCancelled, VersionNotArchived
from tests.archive import plainfiles

BEGAN = datetime(2026, 11, 20, 14, 3, 7, 123456, tzinfo=UTC)


def about(version: int, database: str = "sales") -> About:
    return About(database, version, BEGAN + timedelta(seconds=version), "first")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(LocalStore(tmp_path / "archive"), Sealer())


def restored(archive: Archive, version: int, target: Path, database: str = "sales") -> bytes:
    found = read_archived(archive.store, archive.sealer, version_numbered(archive.store, database, version))
    assemble(archive.store, archive.sealer, found.tree, target)
    return target.read_bytes()


def objects(archive: Archive, kind: str) -> int:
    return sum(1 for _ in archive.store.names(kind))


def test_a_version_costs_what_it_changed(archive: Archive, tmp_path: Path) -> None:
    """One block of 260 changed: that block, the headers and one page of two are hashed and put, nothing else."""
    letters = [chr(65 + number % 3) for number in range(260)]
    file = plainfiles.write(tmp_path / "sales.duckdb", "".join(letters))
    first = write_version(archive, file, about(1))
    assert (first.blocks_hashed, first.blocks_put) == (261, 4)
    letters[100] = "!"
    plainfiles.write(file, "".join(letters), iteration=2)
    second = write_version(archive, file, about(2), first.archived, [(100, 101)])
    assert (second.blocks_hashed, second.blocks_put) == (2, 2)
    assert second.block_bytes == HEADERS_BYTES + BLOCK_BYTES
    pages = [one.manifest.pages for one in (first.archived, second.archived)]
    assert [here == there for here, there in zip(*pages, strict=True)] == [False, True]
    assert second.archived.tree.differing(first.archived.tree) == [0, 101]
    assert restored(archive, 2, tmp_path / "restored") == file.read_bytes()
    known, latest = versions(archive.store, "sales")
    assert newest(archive.store, "sales") == newest(archive.store, "sales", known) == latest
    assert newest(archive.store, "sales", latest) == version_numbered(archive.store, "sales", 2) == latest
    assert newest(archive.store, "nothing") is None


def test_what_is_not_known_is_compared(archive: Archive, tmp_path: Path) -> None:
    """Without `changed` every block is hashed; what is there is not put again, also under another database's name."""
    file = plainfiles.write(tmp_path / "sales.duckdb", "abcd")
    first = write_version(archive, file, about(1))
    assert (first.blocks_hashed, first.blocks_put) == (5, 5)
    again = write_version(archive, file, about(2), first.archived)
    assert (again.blocks_hashed, again.blocks_put, again.bytes_put) == (5, 0, 0)
    other = write_version(archive, file, about(1, "copy"))
    assert (other.blocks_hashed, other.blocks_put, other.bytes_put) == (5, 0, 0)


@pytest.mark.parametrize("letters", ["", ".", "ab", "abcdefg", "abc."])
def test_files_may_grow_and_shrink_by_any_length(archive: Archive, tmp_path: Path, letters: str) -> None:
    file = plainfiles.write(tmp_path / "sales.duckdb", "abcd.")
    first = write_version(archive, file, about(1))
    plainfiles.write(file, letters, iteration=2)
    changed = [(number, number + 1) for number, letter in enumerate(letters) if "abcd."[number : number + 1] != letter]
    write_version(archive, file, about(2), first.archived, changed)
    assert restored(archive, 2, tmp_path / "restored") == file.read_bytes()


def test_the_same_version_twice_is_one(archive: Archive, tmp_path: Path) -> None:
    """Who died before it was told does it again: nothing changes. Another file of that number is refused."""
    file = plainfiles.write(tmp_path / "sales.duckdb", "ab")
    write_version(archive, file, about(1))
    assert write_version(archive, file, about(1)).blocks_put == 0
    plainfiles.write(file, "ac")
    with pytest.raises(ArchiveConflict):
        write_version(archive, file, about(1))
    with pytest.raises(ArchiveConflict):
        write_version(archive, file, replace(about(1), created_at=BEGAN + timedelta(hours=1)))
    first = read_archived(archive.store, archive.sealer, version_numbered(archive.store, "sales", 1))
    with pytest.raises(ArchiveConflict):
        write_version(archive, file, about(0), first)
    assert [found.version for found in versions(archive.store, "sales")] == [1]


def test_a_previous_version_that_was_pruned_is_not_relied_on(archive: Archive, tmp_path: Path) -> None:
    """Its blocks may be gone: everything is hashed, and what is missing put."""
    file = plainfiles.write(tmp_path / "sales.duckdb", "abcd")
    first = write_version(archive, file, about(1))
    remove_versions(archive, versions(archive.store, "sales"))
    archive.store.delete([*archive.store.names(BLOCKS), *archive.store.names(PAGES)])
    second = write_version(archive, file, about(2), first.archived, [])
    assert (second.blocks_hashed, second.blocks_put) == (5, 5)
    assert restored(archive, 2, tmp_path / "restored") == file.read_bytes()
    with pytest.raises(VersionNotArchived):
        version_numbered(archive.store, "sales", 1)


def test_a_writer_that_is_stopped_leaves_no_version(archive: Archive, tmp_path: Path) -> None:
    """And what it had put is there for the next attempt."""
    file, calls = plainfiles.write(tmp_path / "sales.duckdb", "abcdefgh"), []

    def check() -> None:
        calls.append(1)
        if len(calls) == 5:
            raise QueryCancelled

    with pytest.raises(QueryCancelled):
        write_version(archive, file, about(1), check=check)
    assert versions(archive.store, "sales") == []
    assert write_version(archive, file, about(1)).blocks_hashed == 9
    assert restored(archive, 1, tmp_path / "restored") == file.read_bytes()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "sales.duckdb"
    with duckdb.connect(file) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS id, hash(range) AS x FROM range(400000)")
        connection.execute("CREATE TABLE gone AS SELECT hash(range + 7) AS x FROM range(400000)")
        connection.execute("CHECKPOINT")
        connection.execute("DROP TABLE gone")
        connection.execute("CHECKPOINT")
    return file


def rows(file: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(file, read_only=True) as connection:
        return connection.execute("SELECT count(*), sum(hash(t)) FROM t").fetchall()


def free_blocks(file: Path) -> list[int]:
    with file.open("rb") as opened:
        use = read_block_use(opened.fileno(), read_headers(opened.fileno()))
    assert use is not None
    return sorted(block for block in use.free if HEADERS_BYTES + (block + 1) * BLOCK_BYTES <= file.stat().st_size)


def scribbled(file: Path, block: int, at: int = 1000) -> None:
    with file.open("r+b") as opened:
        os.pwrite(opened.fileno(), b"scribble", HEADERS_BYTES + block * BLOCK_BYTES + at)


def test_what_the_database_does_not_use_is_not_kept(archive: Archive, tmp_path: Path, database: Path) -> None:
    """Free blocks hold what was deleted, and differ from copy to copy: two copies of one version are the same version."""
    free = free_blocks(database)
    assert free, "dropping a table should free some"
    first = write_version(archive, database, about(1), checksum_of=block_checksum)
    scribbled(database, free[0])
    again = write_version(archive, database, about(2), checksum_of=block_checksum)
    assert again.archived.tree == first.archived.tree
    assert again.blocks_put == 0
    data = restored(archive, 2, tmp_path / "restored")
    start = HEADERS_BYTES + free[0] * BLOCK_BYTES
    assert data[start : start + BLOCK_BYTES] == bytes(BLOCK_BYTES)
    assert rows(tmp_path / "restored") == rows(database)


def test_a_free_block_that_is_used_again_is_seen(archive: Archive, tmp_path: Path, database: Path) -> None:
    """Even where nobody says that it changed: what was not kept before cannot be taken from before."""
    first = write_version(archive, database, about(1), checksum_of=block_checksum)
    free = set(free_blocks(database))
    with duckdb.connect(database) as connection:
        connection.execute("CREATE TABLE more AS SELECT hash(range + 9) AS x FROM range(400000)")
        connection.execute("CHECKPOINT")
    used = free - set(free_blocks(database))
    assert used, "a new table should use some of them"
    second = write_version(archive, database, about(2), first.archived, [], checksum_of=block_checksum)
    zeros = archive.sealer.digest(bytes(BLOCK_BYTES))
    assert all(second.archived.tree.digest(block + 1) != zeros for block in used)


@pytest.mark.fault
def test_a_damaged_snapshot_is_not_archived(archive: Archive, database: Path) -> None:
    """A bit that flipped since the snapshot was published gets no hash that says it is right. The control: the file before."""
    write_version(archive, database, about(1), checksum_of=block_checksum)
    free = free_blocks(database)
    used = next(block for block in range(3, 100) if block not in free)
    scribbled(database, used)
    for checksum in ({}, {"checksum_of": block_checksum}):
        with pytest.raises(DatabaseUnreadable):
            write_version(archive, database, about(2), **checksum)
    assert [found.version for found in versions(archive.store, "sales")] == [1]


@pytest.mark.parametrize("block_bytes", [16_384, 65_536])
def test_small_blocks_are_archived_in_the_same_pieces(archive: Archive, tmp_path: Path, block_bytes: int) -> None:
    file = tmp_path / "sales.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{file}' AS sales (BLOCK_SIZE {block_bytes})")
        connection.execute("CREATE TABLE sales.t AS SELECT range AS id, hash(range) AS x FROM range(100000)")
        connection.execute("CREATE TABLE sales.gone AS SELECT hash(range + 7) AS x FROM range(100000)")
        connection.execute("CHECKPOINT sales")
        connection.execute("DROP TABLE sales.gone")
        connection.execute("CHECKPOINT sales")
    first = write_version(archive, file, about(1), checksum_of=block_checksum)
    with duckdb.connect(file) as connection:
        connection.execute("UPDATE t SET x = 1 WHERE id < 2000")
        connection.execute("CHECKPOINT")
    second = write_version(archive, file, about(2), first.archived, checksum_of=block_checksum)
    restored(archive, 2, tmp_path / "restored")
    assert rows(tmp_path / "restored") == rows(file)
    changed = [(block, block + 1) for block in changed_blocks(first.archived, second.archived, block_bytes)]
    known = write_version(archive, file, about(3), first.archived, changed, checksum_of=block_checksum)
    assert known.archived.tree == second.archived.tree


def changed_blocks(one: Archived, other: Archived, block_bytes: int) -> list[int]:
    """The blocks of the database within those of the archive that differ."""
    per = BLOCK_BYTES // block_bytes
    return [(block - 1) * per + at for block in other.tree.differing(one.tree) if block for at in range(per)]


def test_a_page_is_as_large_as_the_docs_say() -> None:
    assert PAGE_BLOCKS * BLOCK_BYTES == 64 * 1024 * 1024


def test_everything_is_flushed_before_the_manifest_has_a_name(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents before names, names before the manifest, also of a block that another writer had put and not flushed yet."""
    events: list[tuple[str, str]] = []
    fsync, replace_file = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def named(path: Path, target: Path) -> Path:
        events.append(("fsync of it before", str(path)) if ("fsync", str(path)) in events else ("unflushed", str(path)))
        events.append(("name", str(target)))
        return replace_file(path, target)

    file = plainfiles.write(tmp_path / "sales.duckdb", "abc")
    write_version(archive, file, about(1, "others"))
    there = archive.sealer.digest(b"b" * BLOCK_BYTES)
    plainfiles.write(file, "xby", iteration=2)
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", named)
    manifest = write_version(archive, file, about(1)).archived.manifest
    root = Path(archive.store.address)
    names = [name for kind, name in events if kind == "name"]
    assert [kind for kind, _ in events if kind == "unflushed"] == []
    assert names[-1] == str(root / manifest.name)
    assert len(names) == len(set(names)) == 5, "headers, two blocks, a page, the manifest"
    last = events.index(("name", names[-1]))
    for name in names[:-1]:
        assert ("fsync", str(Path(name).parent)) in events[events.index(("name", name)) : last]
    assert ("fsync", str((root / block_name(there)).parent)) in events[:last]
    assert ("fsync", str(Path(names[-1]).parent)) in events[last:]

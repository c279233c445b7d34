"""A file out of the archive: whole or not at all, from any store, also after an attempt that was interrupted."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pondkeeper.archive.history import Archived, read_archived, version_numbered
from pondkeeper.archive.names import BLOCKS, block_name
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.reading import assemble, fetch_blocks
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.protocol import Store
from pondkeeper.archive.writing import About, write_version
from pondkeeper.errors import ArchiveUnavailable, DiskFull, ObjectMissing
from tests.archive import plainfiles

LETTERS = "abcdefghijkl."


class Counting:
    """Counts what is read, and fails from the n-th block on."""

    at_once = 4

    def __init__(self, store: Store, fails_after: int = 1_000_000) -> None:
        self._store, self._left, self._lock = store, fails_after, threading.Lock()
        self.read: list[str] = []

    def get(self, name: str) -> bytes:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise ArchiveUnavailable
            self.read.append(name)
        return self._store.get(name)


@pytest.fixture
def archived(store: Store, tmp_path: Path) -> tuple[Archive, Archived, bytes]:
    archive, file = Archive(store, Sealer()), plainfiles.write(tmp_path / "sales.duckdb", LETTERS)
    written = write_version(archive, file, About("sales", 1, datetime.now(UTC), "first"))
    return archive, written.archived, file.read_bytes()


def test_a_version_comes_out_of_any_store(archived: tuple[Archive, Archived, bytes], tmp_path: Path) -> None:
    archive, _, wanted = archived
    found = read_archived(archive.store, archive.sealer, version_numbered(archive.store, "sales", 1))
    seen: list[tuple[int, int]] = []
    made = assemble(archive.store, archive.sealer, found.tree, tmp_path / "out", lambda *done: seen.append(done))
    assert (tmp_path / "out").read_bytes() == wanted
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    assert (made.blocks_fetched, made.blocks_kept) == (len(LETTERS) + 1, 0)
    assert seen == [(number, len(LETTERS) + 1) for number in range(1, len(LETTERS) + 2)]


def test_an_interrupted_attempt_is_continued(archived: tuple[Archive, Archived, bytes], tmp_path: Path) -> None:
    """What is there and right is not fetched again; what is there and wrong is."""
    archive, found, wanted = archived
    target = tmp_path / "out"
    with pytest.raises(ArchiveUnavailable):
        assemble(Counting(archive.store, fails_after=6), archive.sealer, found.tree, target)
    assert not target.exists()
    partial = tmp_path / "out.partial"
    present = [number for number in range(len(found.tree)) if _has(partial, wanted, number)]
    assert 0 < len(present) <= 6
    with partial.open("r+b") as file:
        os.pwrite(file.fileno(), b"wrong", plainfiles.offset(present[-1]))
    counting = Counting(archive.store)
    made = assemble(counting, archive.sealer, found.tree, target)
    assert target.read_bytes() == wanted
    assert made.blocks_kept == len(present) - 1
    assert len(counting.read) == made.blocks_fetched == len(found.tree) - made.blocks_kept
    assert not partial.exists()


def _has(partial: Path, wanted: bytes, block: int) -> bool:
    start, end = plainfiles.offset(block), plainfiles.offset(block + 1)
    return partial.read_bytes()[start:end] == wanted[start:end]


def test_a_file_that_is_there_is_not_touched(archived: tuple[Archive, Archived, bytes], tmp_path: Path) -> None:
    archive, found, _ = archived
    (tmp_path / "out").write_text("somebody's")
    with pytest.raises(FileExistsError):
        assemble(archive.store, archive.sealer, found.tree, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "somebody's"


def test_a_block_that_is_missing_is_told(archived: tuple[Archive, Archived, bytes], tmp_path: Path) -> None:
    archive, found, _ = archived
    archive.store.delete([block_name(found.tree.digest(3))])
    with pytest.raises(ObjectMissing):
        assemble(archive.store, archive.sealer, found.tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_is_brought_up_by_what_differs(archived: tuple[Archive, Archived, bytes], tmp_path: Path) -> None:
    """As a replica does: only what it lacks is fetched."""
    archive, old, before = archived
    file = plainfiles.write(tmp_path / "new.duckdb", "abcXefghijklmn", iteration=2)
    new = write_version(archive, file, About("sales", 2, datetime.now(UTC), "first"), old).archived
    (tmp_path / "replica").write_bytes(before)
    counting = Counting(archive.store)
    with (tmp_path / "replica").open("r+b") as replica:
        fetch_blocks(counting, archive.sealer, new.tree, new.tree.differing(old.tree), replica.fileno())
        os.ftruncate(replica.fileno(), new.tree.size_bytes)
    assert (tmp_path / "replica").read_bytes() == file.read_bytes()
    assert len(counting.read) == 4
    assert all(name.startswith(BLOCKS) for name in counting.read)


@pytest.mark.fault
def test_a_full_disk_is_told_and_the_rest_is_fetched_later(
    archived: tuple[Archive, Archived, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, found, wanted = archived

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(DiskFull):
            assemble(archive.store, archive.sealer, found.tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assemble(archive.store, archive.sealer, found.tree, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == wanted

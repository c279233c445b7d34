"""The disk that loses its power: what programs see of it, what it keeps, and where the power is cut."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from campaigns.diskstates import read_tree
from campaigns.droppingdisk import DroppingDisk
from campaigns.fusekernel import ROOT

FILE = stat.S_IFREG | 0o600


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """What lies on the disk when it gets its power."""
    place = tmp_path / "before"
    (place / "folder").mkdir(parents=True)
    (place / "pond.duckdb").write_bytes(b"old" * 1_000)
    return place


def kept_of_many(disk: DroppingDisk, folder: Path, path: str) -> set[object]:
    """What is kept of a file in many cuts at the same moment; None is: it is not there."""
    found: set[object] = set()
    for number in range(60):
        place = folder / f"after-{number}"
        disk.after_a_cut(random.Random(number), place)
        found.add(read_tree(place).get(path))
    return found


def test_only_what_was_synced_with_its_name_is_kept_in_every_cut(before: Path, tmp_path: Path) -> None:
    """The same writes before the syncs may be lost: so it is the sync that keeps them."""
    disk = DroppingDisk(before, is_deaf=False)
    made = disk.make(ROOT, "new", FILE).number
    disk.write(made, 0, b"data")
    disk.sync(made)
    assert None in kept_of_many(disk, tmp_path / "unnamed", "new")
    disk.sync(ROOT)
    assert kept_of_many(disk, tmp_path / "named", "new") == {b"data"}


def test_a_deaf_disk_says_that_it_syncs_and_does_not(before: Path, tmp_path: Path) -> None:
    """It is the positive control of the live cuts."""
    disk = DroppingDisk(before, is_deaf=True)
    made = disk.make(ROOT, "new", FILE).number
    disk.write(made, 0, b"data")
    disk.sync(made)
    disk.sync(ROOT)
    assert {None, b"data"} <= kept_of_many(disk, tmp_path, "new")


def test_a_removed_file_that_is_open_can_be_used_as_on_any_disk(before: Path) -> None:
    """Its number stays what it was, and its name is free for another file."""
    disk = DroppingDisk(before, is_deaf=False)
    opened = disk.find(ROOT, "pond.duckdb").number
    disk.unlink(ROOT, "pond.duckdb")
    disk.write(opened, 0, b"new")
    other = disk.make(ROOT, "pond.duckdb", FILE)
    assert disk.look(opened).links == 0
    assert disk.read(opened, 0, 6) == b"newold"
    assert (other.size_bytes, other.number != opened) == (0, True)


def test_the_power_is_cut_after_the_named_change_and_not_before(before: Path) -> None:
    """Only changes of the chosen kind of file count."""
    disk = DroppingDisk(before, is_deaf=False)
    database = disk.find(ROOT, "pond.duckdb").number
    disk.arm("wal", 2)
    disk.write(database, 0, b"x")
    wal = disk.make(ROOT, "pond.duckdb.wal", FILE).number
    assert disk.cut_by is None
    disk.write(wal, 0, b"x")
    assert disk.cut_by == "write pond.duckdb.wal"


def test_a_folder_with_something_in_it_is_not_removed(before: Path) -> None:
    """As on any disk; without it a lost name would not be noticed."""
    disk = DroppingDisk(before, is_deaf=False)
    folder = disk.find(ROOT, "folder").number
    disk.make(folder, "file", FILE)
    with pytest.raises(OSError, match="folder"):
        disk.remove_folder(ROOT, "folder")
    disk.unlink(folder, "file")
    disk.remove_folder(ROOT, "folder")
    assert [name for name, _, _ in disk.names_in(ROOT)] == ["pond.duckdb"]

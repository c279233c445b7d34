"""Replacing a database file: after a kill at any step it is the old one or the new one, whole, and its WAL with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pondkeeper.errors import DatabaseBusy, DatabaseUnavailable, InvalidRequest
from pondkeeper.files import swapping
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.lease import Lease
from tests.support.keeper import program_environment

HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from pondkeeper.files import swapping
from pondkeeper.files.paths import DatabasePaths

def main(folder, step):
    folder.mkdir()
    paths = DatabasePaths(folder / "pond.duckdb", folder / ".pondkeeper")
    paths.file.write_bytes(b"old")
    paths.wal.write_bytes(b"old wal")
    preparing = swapping.Preparing(paths, "restore")
    preparing.file.write_bytes(b"new")
    seen = 0

    def count(event, arguments):
        nonlocal seen
        if event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "open"):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    preparing.carry_out()

step, was_killed = 0, True
while was_killed:
    step += 1
    child = os.fork()
    if child == 0:
        main(Path(sys.argv[1]) / str(step), step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    was_killed = os.WIFSIGNALED(status)
    assert was_killed or status == 0
print(step)
"""


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    found = DatabasePaths(tmp_path / "pond.duckdb", tmp_path / ".pondkeeper")
    make_folder(found.turn)
    found.file.write_bytes(b"old")
    return found


def files(paths: DatabasePaths) -> dict[str, bytes]:
    """What lies beside each other at the database's place."""
    return {each.name: each.read_bytes() for each in paths.file.parent.iterdir() if each.is_file()}


def prepared(paths: DatabasePaths, content: bytes = b"new") -> swapping.Preparing:
    preparing = swapping.Preparing(paths, "restore", {"version": 7})
    preparing.file.write_bytes(content)
    return preparing


def test_the_new_file_is_alone_and_the_old_one_is_kept_with_its_wal(paths: DatabasePaths) -> None:
    """A WAL of the old file beside the new one would be replayed over it."""
    paths.wal.write_bytes(b"old wal")
    swap = prepared(paths).carry_out()
    assert files(paths) == {"pond.duckdb": b"new"}
    assert [each.read_bytes() for each in swapping.set_aside(paths, swap)] == [b"old", b"old wal"]
    assert not swapping.is_under_way(paths)
    assert swapping.swaps(paths) == [swap]
    assert paths.file.stat().st_nlink == 1


def test_undo_brings_back_the_file_and_its_wal_and_can_be_undone(paths: DatabasePaths) -> None:
    """Both directions, as often as one likes; what is live is never also what is kept."""
    paths.wal.write_bytes(b"old wal")
    prepared(paths).carry_out()
    swapping.prepare_undo(paths, "restore", "undo").carry_out()
    assert files(paths) == {"pond.duckdb": b"old", "pond.duckdb.wal": b"old wal"}
    assert paths.file.stat().st_nlink == paths.wal.stat().st_nlink == 1
    again = swapping.prepare_undo(paths, "restore", "undo").carry_out()
    assert files(paths) == {"pond.duckdb": b"new"}
    assert [each.read_bytes() for each in swapping.set_aside(paths, again)] == [b"old", b"old wal"]


def test_nothing_to_undo_is_said(paths: DatabasePaths) -> None:
    """An undo without a swap changes nothing."""
    with pytest.raises(InvalidRequest, match="nothing to undo"):
        swapping.prepare_undo(paths, "restore")
    assert files(paths) == {"pond.duckdb": b"old"}


def test_a_swap_that_was_discarded_leaves_nothing(paths: DatabasePaths) -> None:
    """Neither beside the database nor in its folder."""
    prepared(paths).discard()
    assert files(paths) == {"pond.duckdb": b"old"}
    assert list((paths.turn / "swaps").iterdir()) == []


def test_a_database_that_was_lost_can_be_replaced(paths: DatabasePaths) -> None:
    """There is nothing to set aside then, and its stale WAL does not stay."""
    paths.file.unlink()
    paths.wal.write_bytes(b"stale")
    swap = prepared(paths).carry_out()
    assert files(paths) == {"pond.duckdb": b"new"}
    assert [each.name for each in swapping.set_aside(paths, swap)] == ["pond.duckdb.wal"]


def test_forget_keeps_the_newest_of_a_kind(paths: DatabasePaths) -> None:
    """Old files cost the size of the database each."""
    for number in range(3):
        prepared(paths, b"%d" % number).carry_out()
    repair = swapping.Preparing(paths, "repair")
    repair.file.write_bytes(b"repaired")
    repaired = repair.carry_out()
    newest = swapping.swaps(paths, "restore")[-1]
    swapping.forget(paths, "restore", "undo", keep=1)
    assert swapping.swaps(paths) == [newest, repaired]


def test_a_file_that_somebody_has_open_is_not_replaced(paths: DatabasePaths) -> None:
    """DuckDB's lock is asked; nothing has happened then."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(paths.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        preparing = prepared(paths)
        with pytest.raises(DatabaseBusy):
            preparing.carry_out()
        preparing.discard()
        assert files(paths) == {"pond.duckdb": b"old"}
    finally:
        held.communicate("\n")


def test_tidy_leaves_what_somebody_still_prepares(paths: DatabasePaths) -> None:
    """What a dead process prepared is removed; that of a living one is not."""
    living = prepared(paths)
    dead = paths.turn / "swaps" / "20200101T000000.000000Z-dead" / "new"
    make_folder(dead)
    swapping.tidy(paths)
    assert living.file.exists()
    assert not dead.parent.exists()
    living.discard()


def test_a_new_file_that_was_taken_away_is_said_and_harms_nothing(paths: DatabasePaths) -> None:
    """The journal names a swap whose file is gone: the old one stays, with its WAL."""
    paths.wal.write_bytes(b"old wal")
    preparing = prepared(paths)
    swapping.journal(paths).write_bytes(preparing.swap.encode())
    preparing.file.unlink()
    with pytest.raises(DatabaseUnavailable, match="was removed"):
        swapping.finish(paths)
    assert files(paths) == {"pond.duckdb": b"old", "pond.duckdb.wal": b"old wal"}


@pytest.mark.fault
def test_killed_at_every_step_it_is_old_or_new_and_the_next_lease_ends_it(tmp_path: Path) -> None:
    """kill -9 before each system call that changes the disk; then somebody takes the lease, as the writer does."""
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=program_environment())
    found = [_what_is_left(tmp_path / str(step)) for step in range(1, int(ended.stdout) + 1)]
    assert len(found) > 20
    assert {(False, "old"), (True, "new"), (False, "new")} <= set(found), "the kills came at no step of interest"


def _what_is_left(folder: Path) -> tuple[bool, str]:
    """Whether the swap was under way, and which database there is when the lease was taken."""
    paths = DatabasePaths(folder / "pond.duckdb", folder / ".pondkeeper")
    begun = swapping.is_under_way(paths)
    lease = Lease(paths, "test", "after a kill")
    lease.acquire(5.0)
    lease.release()
    swapping.tidy(paths)
    found = files(paths)
    assert found in ({"pond.duckdb": b"old", "pond.duckdb.wal": b"old wal"}, {"pond.duckdb": b"new"})
    assert not begun or found == {"pond.duckdb": b"new"}
    assert not swapping.is_under_way(paths)
    assert paths.file.stat().st_nlink == 1
    for swap in swapping.swaps(paths):
        assert [each.read_bytes() for each in swapping.set_aside(paths, swap)] == [b"old", b"old wal"]
    return begun, found["pond.duckdb"].decode()


def test_the_names_of_one_file_are_never_mixed_up(paths: DatabasePaths) -> None:
    """A swap that was carried out up to its rename, and then again: the rename of two names of one file does nothing."""
    preparing = prepared(paths)
    swapping.journal(paths).write_bytes(preparing.swap.encode())
    os.link(preparing.file, paths.file.with_name(".pond.duckdb.swap.tmp"))
    swapping.finish(paths)
    assert files(paths) == {"pond.duckdb": b"new"}
    assert paths.file.stat().st_nlink == 1

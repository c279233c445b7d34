"""The kernel's view of locks: flock on side files, and who holds a lock on a database."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pondkeeper.files.locks import FlockFile, holders_of, is_flocked, program_of

HOLD_POSIX = (
    "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint(1,flush=True)\nsys.stdin.read()"
)


@pytest.fixture
def foreign_holder(tmp_path: Path):
    file = tmp_path / "warehouse.duckdb"
    file.write_bytes(b"x" * 100)
    script = tmp_path / "nightly.py"
    script.write_text(HOLD_POSIX)
    child = subprocess.Popen([sys.executable, str(script), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline()
    yield file, child
    child.kill()
    child.communicate()


def test_one_holder_at_a_time_and_free_after_release(tmp_path: Path) -> None:
    """A second lock on the same side file is refused until the first is released."""
    first, second = FlockFile(tmp_path / "lease.lock"), FlockFile(tmp_path / "lease.lock")
    assert first.try_acquire() and first.try_acquire() and first.held
    assert not second.try_acquire() and is_flocked(first.path)
    first.release()
    assert not is_flocked(first.path)
    assert second.try_acquire()
    second.release()
    assert (tmp_path / "lease.lock").stat().st_mode & 0o777 == 0o600


def test_a_child_that_inherited_the_descriptor_keeps_the_lock(tmp_path: Path) -> None:
    """The lock lives until the last process that has the descriptor is gone, and a kill -9 frees it."""
    lock = FlockFile(tmp_path / "lease.lock")
    assert lock.try_acquire()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock.fileno()])
    lock.release()
    assert is_flocked(lock.path) and not FlockFile(lock.path).try_acquire()
    child.kill()
    child.wait()
    assert not is_flocked(lock.path)


def test_a_replaced_file_is_not_mistaken_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the path is replaced between open and lock, the lock is taken on the file that others will see."""
    path = tmp_path / "lease.lock"
    path.touch()
    flock = fcntl.flock

    def replace_then_lock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        path.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_then_lock)
    lock = FlockFile(path)
    assert lock.try_acquire()
    assert os.fstat(lock.fileno()).st_ino == path.stat().st_ino
    lock.release()


def test_asking_never_makes_an_acquire_fail(tmp_path: Path) -> None:
    """A free lock is acquired although another process asks `is_flocked` all the time."""
    path = tmp_path / "lease.lock"
    path.touch()
    code = "import sys\nfrom pathlib import Path\nfrom pondkeeper.files.locks import is_flocked\nwhile True: is_flocked(Path(sys.argv[1]))"
    asker = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        for _ in range(200):
            lock = FlockFile(path)
            deadline = time.monotonic() + 2
            while not lock.try_acquire():
                assert time.monotonic() < deadline, "an asker kept the lock"
            lock.release()
    finally:
        asker.kill()
        asker.wait()


def test_the_holder_of_a_database_is_named(foreign_holder: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """A program that holds a POSIX lock is named by pid and script, without opening the file."""
    file, child = foreign_holder
    (holder,) = holders_of(file)
    assert (holder.pid, holder.kind, holder.writes) == (child.pid, "posix", True)
    assert holder.program.startswith("python") and holder.program.endswith("nightly.py")
    child.kill()
    child.wait()
    assert holders_of(file) == []


def test_asking_does_not_spring_the_lock_trap(tmp_path: Path) -> None:
    """`holders_of` in the process that holds the POSIX lock leaves it in place; opening the file drops it (control)."""
    file = tmp_path / "warehouse.duckdb"
    file.write_bytes(b"x")
    with file.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        assert [holder.pid for holder in holders_of(file)] == [os.getpid()]
        assert [holder.pid for holder in holders_of(file)] == [os.getpid()]
        file.read_bytes()
        assert holders_of(file) == [], "the control must show the trap"


def test_nobody_holds_a_missing_or_free_file(tmp_path: Path) -> None:
    """A missing or an unlocked file has no holders and is not locked."""
    assert holders_of(tmp_path / "none") == [] and not is_flocked(tmp_path / "none")
    (tmp_path / "free").touch()
    assert holders_of(tmp_path / "free") == [] and not is_flocked(tmp_path / "free")


def test_program_names_carry_no_arguments(tmp_path: Path) -> None:
    """A program's name shows its script or module and none of its other arguments."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--password=hunter2"])
    try:
        assert "hunter2" not in program_of(child.pid) and "python" in program_of(child.pid)
        assert program_of(2**22 + 1) == "unknown"
    finally:
        child.kill()
        child.wait()

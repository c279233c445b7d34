"""The file that is being made into a snapshot: under a private name, and proved to be open nowhere else."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.errors import DatabaseReadOnly, DiskFull
from pondkeeper.files.durable import PRIVATE_FILE, PRIVATE_FOLDER
from pondkeeper.files.leases import hold_alone, is_held_alone
from pondkeeper.snapshots.contents import Contents
from pondkeeper.snapshots.folders import SNAPSHOT_MODE, private_folder, version_folder

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass
class Target:
    """A private folder with one open file in it. A recycled one keeps its lease until the descriptor is closed."""

    folder: Path
    file: Path
    descriptor: int
    contents: Contents
    recycled: bool

    @classmethod
    def create(cls, snapshots: Path, file_name: str, block_count: int) -> Target:
        """A new, empty file. Nobody can know its name, so it needs no lease."""
        with disk_errors():
            folder = private_folder(snapshots)
            folder.mkdir(mode=PRIVATE_FOLDER)
            file = folder / file_name
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
        return cls(folder, file, descriptor, Contents.nothing(block_count), recycled=False)

    @classmethod
    def recycle(cls, snapshots: Path, version: int, file_name: str, contents: Contents) -> Target | None:
        """An old snapshot, taken out of sight; None when somebody has it open, or nobody can say."""
        visible = version_folder(snapshots, version)
        descriptor = _open_alone(visible / file_name)
        if descriptor is None:
            return None
        folder = private_folder(snapshots)
        visible.rename(folder)
        if not is_held_alone(descriptor):  # Why: somebody wants to open it in this moment and waits for our lease.
            folder.rename(visible)
            os.fchmod(descriptor, SNAPSHOT_MODE)
            os.close(descriptor)
            return None
        return cls(folder, folder / file_name, descriptor, contents, recycled=True)

    def write(self, data: bytes, offset: int) -> None:
        with disk_errors():
            view = memoryview(data)
            while view:
                written = os.pwrite(self.descriptor, view, offset)
                view, offset = view[written:], offset + written

    def read(self, length: int, offset: int) -> bytes:
        return os.pread(self.descriptor, length, offset)

    def close(self) -> None:
        """Close the file, and with it end the lease: from now on others may open it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def discard(self) -> None:
        """Remove the file and its folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def take_away(snapshots: Path, version: int, file_name: str) -> Path | None:
    """Take an old snapshot out of sight in order to remove it; the folder's private name, or None when it is in use.

    Where the file system has no leases DuckDB's own lock decides: removing, unlike changing, harms nobody who has it
    open without a lock.
    """
    visible = version_folder(snapshots, version)
    descriptor = _open_unlocked(visible / file_name)
    if descriptor is None:
        return None
    folder = private_folder(snapshots)
    visible.rename(folder)
    os.close(descriptor)
    return folder


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what a disk may refuse into our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                "The disk is full: the snapshot could not be written. The newest snapshot is untouched.",
                private=str(error),
            ) from error
        if error.errno in _REFUSED:
            raise DatabaseReadOnly("The folder of the snapshots cannot be written.", private=str(error)) from error
        raise


def _open_alone(file: Path) -> int | None:
    """A writable descriptor with a lease on a file that has no second name; None when that cannot be had."""
    if not file.is_file() or file.stat().st_nlink != 1:
        return None
    descriptor = _open_writable(file)
    if hold_alone(descriptor):
        return descriptor
    _close_sealed(descriptor)
    return None


def _open_unlocked(file: Path) -> int | None:
    descriptor = _open_writable(file)
    alone = hold_alone(descriptor)
    if alone is None:
        with contextlib.suppress(BlockingIOError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
    if alone:
        return descriptor
    _close_sealed(descriptor)
    return None


def _open_writable(file: Path) -> int:
    file.chmod(PRIVATE_FILE)
    return os.open(file, os.O_RDWR | os.O_CLOEXEC)


def _close_sealed(descriptor: int) -> None:
    os.fchmod(descriptor, SNAPSHOT_MODE)
    os.close(descriptor)

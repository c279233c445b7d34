"""The restorer: makes a file of what a database was at a version or a time, from a snapshot or from the archive.

A process of its own (`workers/alone.py`): it decompresses and may speak to a bucket, so it runs no SQL. What it has made
is opened and judged by another one (`engine/proving.py`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pondkeeper.archive import history
from pondkeeper.archive.manifest import ArchivedVersion, format_time
from pondkeeper.archive.opening import Archive, open_archive
from pondkeeper.archive.reading import assemble, disk_errors
from pondkeeper.errors import DatabaseUnreadable, DiskFull, ObjectMissing, VersionNotArchived
from pondkeeper.files.durable import PRIVATE_FILE, sync_folder
from pondkeeper.files.flushing import flushing
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.holding import HeldSnapshot, Wanted, hold_snapshot
from pondkeeper.snapshots.taking_out import take_out
from pondkeeper.snapshots.verifying import verify

Tell = Callable[[str], None]
RESERVE_BYTES: Final = 64 << 20
_FICLONE: Final = 0x40049409
_NO_REFLINKS: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_TELL_EVERY_S: Final = 0.5


def answer(question: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Make `file`, which is not there, whole and durable. Raises VersionNotArchived, SnapshotNotFound, and more."""
    wanted = Wanted(question["version"], datetime.fromisoformat(question["at"]) if question["at"] else None)
    file = Path(question["file"])
    snapshot = hold_snapshot(Path(question["snapshots"]), question["file_name"], wanted)
    target = question["archive"]
    if target is None or (snapshot is not None and wanted.is_decided_by(snapshot.version)):
        return _from_snapshot(_there(snapshot, question["database"]), file, tell)
    key_file = Path(question["key_file"]) if question["key_file"] else None
    with open_archive(target, key_file, make=False) as archive:
        found = _archived(archive, question["database"], wanted)
        if found is None or (snapshot is not None and snapshot.version >= found.version):
            return _from_snapshot(_there(snapshot, question["database"]), file, tell)
        return _from_archive(archive, found, file, tell)


def _there(snapshot: HeldSnapshot | None, database: str) -> HeldSnapshot:
    if snapshot is None:
        raise VersionNotArchived("Neither the snapshots nor the archive have such a version.", database=database)
    return snapshot


# From a snapshot


def _from_snapshot(snapshot: HeldSnapshot, file: Path, tell: Tell) -> dict[str, Any]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        shares = _share(snapshot.descriptor, descriptor)
        if shares:
            _prove_shared(file, descriptor, tell)
        else:
            _check_space(file.parent, os.fstat(snapshot.descriptor).st_size)
            _copy(snapshot.descriptor, descriptor, tell)
        size_bytes = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
        snapshot.close()
    sync_folder(file.parent)
    return {
        "version": snapshot.version,
        "created_at": format_time(snapshot.created_at),
        "source": "snapshot",
        "method": "reflink" if shares else "copy",
        "size_bytes": size_bytes,
    }


def _share(source: int, target: int) -> bool:
    """Let both files have the same blocks on disk until one is changed; False where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_REFLINKS:
            raise
        return False
    return True


def _prove_shared(file: Path, descriptor: int, tell: Tell) -> None:
    """Flush what shares its blocks with a snapshot, and read all of it."""
    with ThreadPoolExecutor(1) as disk:
        flushed = disk.submit(os.fsync, descriptor)
        tell("checking every block")
        damaged = verify(file, Cancelling()).damaged
        flushed.result()
    if damaged:
        raise DatabaseUnreadable("A block of the snapshot is damaged: its checksum does not match.", block=damaged[0])


def _copy(source: int, target: int, tell: Tell) -> None:
    """Every block checked and written, and durable."""
    now_and_then = _NowAndThen(tell)
    with disk_errors(), flushing(target) as written:

        def told(done_bytes: int, of_bytes: int) -> None:
            written(done_bytes)
            now_and_then.say(lambda: f"copied and checked {100 * done_bytes // of_bytes}%")

        take_out(source, target, told)


class _NowAndThen:
    """Says what is done, not more often than people read."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._said_at = time.monotonic()

    def say(self, make: Callable[[], str]) -> None:
        if time.monotonic() - self._said_at > _TELL_EVERY_S:
            self._said_at = time.monotonic()
            self._tell(make())


# From the archive


def _archived(archive: Archive, database: str, wanted: Wanted) -> ArchivedVersion | None:
    fitting = [each for each in history.versions(archive.store, database) if wanted.fits(each.version, each.created_at)]
    return max(fitting, default=None)


def _from_archive(archive: Archive, found: ArchivedVersion, file: Path, tell: Tell) -> dict[str, Any]:
    archived = history.read_archived(archive.store, archive.sealer, found)
    _check_space(file.parent, archived.manifest.size_bytes)
    now_and_then = _NowAndThen(tell)

    def progress(done: int, of: int) -> None:
        now_and_then.say(lambda: f"fetched {done:,} of {of:,} blocks")

    try:
        assembled = assemble(archive.store, archive.sealer, archived.tree, file, progress)
    except ObjectMissing as missing:
        raise _pruned_or_damaged(archive, found, missing) from missing
    return {
        "version": found.version,
        "created_at": archived.manifest.created_at,
        "source": "archive",
        "method": "archive",
        "size_bytes": archived.manifest.size_bytes,
        "blocks_fetched": assembled.blocks_fetched,
        "bytes_fetched": assembled.bytes_fetched,
    }


def _pruned_or_damaged(archive: Archive, found: ArchivedVersion, missing: ObjectMissing) -> Exception:
    if archive.store.has(found.name):
        return missing
    return VersionNotArchived("That version was pruned while it was fetched.", version=found.version)


def _check_space(folder: Path, size_bytes: int) -> None:
    """Refuse before the first byte: a disk filled to the brim would also stop the writer."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < size_bytes + RESERVE_BYTES:
        raise DiskFull("The disk has no room for the restored file. Nothing was changed.")



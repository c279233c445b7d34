"""A file that a power cut has torn, made whole again: beside it, proved, and swapped in by a journalled plan.

    examine → torn? → copy the file and its WALs → put back what is torn, from the donor → DuckDB replays the WAL and
    checkpoints → every block in use carries its checksum → `files/swapping.py` swaps it in and keeps the torn files

Whoever calls holds the lease, and no process has the file open.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import BlockUse, block_offset, split_headers
from pondkeeper.engine.opening import WriterConfig, open_database
from pondkeeper.engine.walformat import WalState, read_wal
from pondkeeper.errors import DatabaseBusy, DatabaseUnreadable
from pondkeeper.files import swapping
from pondkeeper.files.durable import sync_file, sync_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.room import insist_on_room
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.repairing.damage import Examined, examine, torn_blocks
from pondkeeper.snapshots.repairing.donors import Donor, find_donor
from pondkeeper.snapshots.repairing.report import WHY, Repaired, swap_in
from pondkeeper.snapshots.verifying import verify

_NAMED_BLOCKS = 20
_PIECE_BYTES = 64 << 20
_RESTORE = "Restore it: `pondkeeper backup list` shows the versions, `pondkeeper check` names the damage."


def repair(paths: DatabasePaths, engine: WriterConfig, *, thorough: bool = False) -> dict[str, Any] | None:
    """Look after the file and swap in what was put together, all of it here; the report, None when nothing was to be done.

    The caller holds the lease. The keeper does it in two processes, because the one that works behind a fence cannot
    see who has the file open.
    """
    swapping.finish(paths)
    prepared: list[swapping.Preparing] = []

    def begin() -> Path:
        prepared.append(swapping.Preparing(paths, WHY))
        return prepared[0].file

    try:
        done = look_after(paths, engine, begin, thorough=thorough)
        if done is None or not prepared:
            return done.describe() if done else None
        return swap_in(paths, prepared[0], done.describe())
    finally:
        for preparing in prepared:
            preparing.discard()


def look_after(
    paths: DatabasePaths, engine: WriterConfig, begin: Callable[[], Path], *, thorough: bool = False
) -> Repaired | None:
    """Put together what is to replace a torn file; None when it is not torn. `thorough`: read all blocks in use.

    `begin()` is asked where to put it, and not called when nothing is to be swapped in. Raises DatabaseUnreadable for
    damage that cannot be repaired: then nobody may open the file to write it.
    """
    with _opened(paths.file) as descriptor:
        if descriptor is None:
            return None
        examined = examine(descriptor)
        wal = read_wal(paths.wal, block_checksum)
        if wal.lost_commits:
            raise _beyond_repair("The WAL is damaged, and commits lie beyond the damage", wal=wal.whole_bytes)
        torn = examined.torn
        if thorough and examined.use is not None and examined.headers is not None:
            torn = torn_blocks(descriptor, _used(examined.use), examined.headers.active.block_size_bytes)
        if torn or examined.is_damaged:
            return _mend(paths, engine, descriptor, examined, wal, begin)
    return None if wal.is_whole or not examined.known else _cut_wal(paths, wal)


def _mend(
    paths: DatabasePaths, engine: WriterConfig, descriptor: int, examined: Examined, wal: WalState, begin: Callable[[], Path]
) -> Repaired:
    donor = find_donor(paths, examined)
    if donor is None:
        why = f"{examined.reason} There is no copy of its last checkpoint"
        raise _beyond_repair(why, blocks=examined.torn)
    try:
        found = _torn_by(donor, descriptor)
        insist_on_room(paths.turn, os.fstat(descriptor).st_size)
        file = begin()
        _copy(descriptor, file, donor, examined, found)
    finally:
        donor.close()
    for companion in swapping.COMPANIONS:
        with suppress(FileNotFoundError):
            _copy_file(paths.file.with_name(paths.file.name + companion), _beside(file, companion))
    if not wal.is_whole:
        _cut(_beside(file, ".wal"), wal)
    _prove(file, engine)
    cut = wal.size_bytes - wal.whole_bytes
    return Repaired(_now(), len(found), found[:_NAMED_BLOCKS], len(examined.torn_headers), cut, donor.name)


def _torn_by(donor: Donor, descriptor: int) -> list[int]:
    """Every block in use that is torn. Raises DatabaseUnreadable when the donor cannot give one of them."""
    found = torn_blocks(descriptor, _used(donor.use), donor.block_size_bytes)
    lacking = [block for block in found if donor.block(block) is None]
    if lacking:
        raise _beyond_repair(f"The database file is damaged, and {donor.name} has not got all that is torn", blocks=lacking)
    return found


def _used(use: BlockUse) -> Iterator[int]:
    return (block for block in range(use.block_count) if use.is_used(block))


def _copy(descriptor: int, target: Path, donor: Donor, examined: Examined, torn: list[int]) -> None:
    """The file as it was at the donor's checkpoint, with what was loaded into free and new blocks since."""
    _copy_open(descriptor, target)
    with target.open("r+b") as opened:
        for block in torn:
            data = donor.block(block)
            assert data is not None, "asked for before"
            os.pwrite(opened.fileno(), data, block_offset(block, donor.block_size_bytes))
        own = split_headers(donor.headers.raw)
        for number in examined.torn_headers:
            os.pwrite(opened.fileno(), own[number], number * len(own[0]))


def _prove(file: Path, engine: WriterConfig) -> None:
    """Let DuckDB replay the WAL and checkpoint; then each block must carry its checksum. Raises DatabaseUnreadable."""
    config = WriterConfig(
        str(file), engine.memory_limit_bytes, engine.threads, engine.temp_directory, engine.temp_limit_bytes, may_make=False
    )
    open_database(config).close()
    found = verify(file, Cancelling())
    if not found.whole:
        raise _beyond_repair("What was put together is damaged as well", blocks=found.damaged)
    open_database(config).close()


def _cut_wal(paths: DatabasePaths, wal: WalState) -> Repaired:
    """Cut the torn end off the WAL, which holds nothing that was acknowledged; as it was it is kept beside."""
    temp = paths.cut_wal.with_name(".cut.wal.tmp")
    _copy_file(paths.wal, temp)
    sync_file(temp)
    temp.replace(paths.cut_wal)
    sync_folder(paths.turn)
    _cut(paths.wal, wal)
    sync_folder(paths.file.parent)
    cut = wal.size_bytes - wal.whole_bytes
    return Repaired(_now(), 0, [], 0, cut, None, paths.cut_wal.name)


def _cut(path: Path, wal: WalState) -> None:
    """Trap: a WAL of nothing but its first entry's half is no WAL; none at all is one."""
    if not wal.whole_bytes:
        path.unlink()
        return
    with path.open("r+b") as opened:
        opened.truncate(wal.whole_bytes)
        os.fsync(opened.fileno())


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The file, with a shared lock on it that keeps every writer out; None when it cannot be read.

    Trap: this must stay the only descriptor of the file in this process: closing another one would drop the lock.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        yield None
        return
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise DatabaseBusy("Another program has the database open.", private=str(path)) from error
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as opened:
        _copy_open(opened.fileno(), target)


def _copy_open(source: int, target: Path) -> None:
    """Let the kernel copy; where the file system has reflinks it only shares."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as opened:
        at, size = 0, os.fstat(source).st_size
        while at < size:
            done = _copy_piece(source, opened.fileno(), at, min(_PIECE_BYTES, size - at))
            if not done:
                break
            at += done


def _copy_piece(source: int, target: int, at: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, at, at)
    except OSError:  # Why: not every file system has it, nor between any two; a disk that is full says so again below.
        return os.pwrite(target, os.pread(source, length, at), at)


def _beside(file: Path, companion: str) -> Path:
    return file.with_name(file.name + companion)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _beyond_repair(what: str, **details: Any) -> DatabaseUnreadable:
    return DatabaseUnreadable(f"{what}: it cannot be repaired from here.", remedy=_RESTORE, private=repr(details))

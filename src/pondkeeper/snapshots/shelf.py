"""The copies of one database on disk: the visible versions, and one spare that the next snapshot is made of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pondkeeper.engine.fileformat import block_offset
from pondkeeper.errors import DiskFull
from pondkeeper.files.durable import sync_folder
from pondkeeper.snapshots.contents import Contents
from pondkeeper.snapshots.folders import version_folder, visible_versions
from pondkeeper.snapshots.source import Observation
from pondkeeper.snapshots.target import Target, disk_errors, take_away

CHEAP_BLOCKS = 32
MUCH_CHEAPER = 4
SPARE_STEP_BLOCKS = 16
RESERVE_BYTES = 64 << 20


class Shelf:
    """Knows of each copy what may differ from the source. What it does not know, it says."""

    def __init__(self, snapshots: Path, file_name: str) -> None:
        self.snapshots = snapshots
        self.file_name = file_name
        self._contents = {version: Contents() for version in visible_versions(snapshots)}
        self._spare: Target | None = None
        self._missing: list[int] = []
        self._doomed: list[Path] = []

    @property
    def versions(self) -> list[int]:
        return sorted(self._contents)

    def note(self, written: set[int] | None) -> None:
        """The source has moved on: tell every copy."""
        for contents in [*self._contents.values(), *([self._spare.contents] if self._spare else [])]:
            contents.note(written)

    def take_target(self, now: Observation) -> Target:
        """The spare; or a new file; or, where that is much less work, an old version that nobody has open.

        Much less: under a heavy load the spare lacks more than the last versions do, and those are to stay visible.
        """
        count, size = now.block_count, now.headers.active.size_bytes
        cost = _cost(self._spare.contents, count) if self._spare else count
        limit = cost // MUCH_CHEAPER if self._spare else cost
        if cost > CHEAP_BLOCKS and (old := self._recycle_cheaper_than(limit, count)):
            return old
        if self._spare:
            self._check_space(size - os.fstat(self._spare.descriptor).st_size)
            target, self._spare = self._spare, None
            return target
        self._check_space(size)
        return Target.create(self.snapshots, self.file_name, count)

    def forget_missing(self) -> None:
        """Drop what somebody removed behind our back."""
        for version in self.versions:
            if not (version_folder(self.snapshots, version) / self.file_name).is_file():
                shutil.rmtree(version_folder(self.snapshots, version), ignore_errors=True)
                del self._contents[version]
        if self._spare and not self._spare.file.exists():
            self.drop_spare()

    def put_back(self, target: Target) -> None:
        """A publish failed: keep the target for the next one, unless there is a spare already."""
        if self._spare:
            target.discard()
        else:
            self._spare = target
            self._missing = []

    def add(self, version: int, contents: Contents) -> None:
        """A new version has become visible, with these contents."""
        self._contents[version] = contents

    def retire(self, keep: int) -> list[int]:
        """Take versions beyond the newest `keep` out of sight, if nobody has them open: one as spare, the others for
        removal. Returns those that are gone."""
        gone = []
        for version in self.versions[: -max(keep, 1)]:
            if self._retire_as_spare(version) or self._retire_for_removal(version):
                del self._contents[version]
                gone.append(version)
        return gone

    def drop_spare(self) -> None:
        """Give the disk space of the spare back."""
        if self._spare:
            self._spare.discard()
            self._spare = None

    def idle_step(self, now: Observation | None) -> bool:
        """A few milliseconds of work for later; False when there is none left."""
        if self._doomed:
            shutil.rmtree(self._doomed.pop(), ignore_errors=True)
            return True
        if now is None or not self._contents or not self._contents[self.versions[-1]].certain:
            return False
        if self._spare is None and not self._start_spare(now):
            return False
        return self._fill_spare(now)

    def _recycle_cheaper_than(self, cost: int, count: int) -> Target | None:
        """The oldest that will do; never the newest: that is the one readers open."""
        for version in self.versions[:-1]:
            if _cost(self._contents[version], count) < cost and (target := self._recycle(version)):
                # Why before a byte of it is changed: after a power cut it might be that version again.
                sync_folder(self.snapshots)
                del self._contents[version]
                return target
        return None

    def _recycle(self, version: int) -> Target | None:
        return Target.recycle(self.snapshots, version, self.file_name, self._contents[version])

    def _retire_as_spare(self, version: int) -> bool:
        if self._spare and not self._missing:
            return False
        target = self._recycle(version)
        if target is None:
            return False
        if self._spare:  # Why: half-filled and now needless; removed in idle time.
            self._spare.close()
            self._doomed.append(self._spare.folder)
        self._spare, self._missing = target, []
        return True

    def _retire_for_removal(self, version: int) -> bool:
        folder = take_away(self.snapshots, version, self.file_name)
        if folder:
            self._doomed.append(folder)
        return folder is not None

    def _check_space(self, size_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Refuse before the first byte: a disk filled to the brim would also stop the writer."""
        disk = os.statvfs(self.snapshots)
        if size_bytes > 0 and disk.f_bavail * disk.f_frsize < size_bytes + reserve_bytes:
            raise DiskFull("The disk has no room for another snapshot. The newest snapshot is untouched.")

    def _start_spare(self, now: Observation) -> bool:
        size = now.headers.active.size_bytes
        try:
            self._check_space(size, RESERVE_BYTES + size)
            self._spare = Target.create(self.snapshots, self.file_name, now.block_count)
        except DiskFull:
            return False
        self._missing = list(reversed(now.used))
        return True

    def _fill_spare(self, now: Observation) -> bool:
        """Copy some blocks from the newest snapshot, which nobody changes, and flush them, so that a publish need not."""
        spare = self._spare
        if spare is None or not self._missing:
            return False
        blocks = [self._missing.pop() for _ in range(min(SPARE_STEP_BLOCKS, len(self._missing)))]
        newest = self.versions[-1]
        donor = os.open(version_folder(self.snapshots, newest) / self.file_name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with disk_errors():
                for block in blocks:
                    _copy_range(donor, spare.descriptor, block, now.block_size_bytes)
                os.fdatasync(spare.descriptor)
        except DiskFull:
            self.drop_spare()
            return False
        finally:
            os.close(donor)
        spare.contents.stale.difference_update(set(blocks) - self._contents[newest].stale)
        return bool(self._missing)


def _cost(contents: Contents, count: int) -> int:
    """About how many blocks would have to be copied; comparing two blocks counts as half a copy."""
    return len(contents.stale) if contents.certain else count // 2


def _copy_range(source: int, target: int, block: int, size_bytes: int) -> None:
    """Let the kernel copy; on a file system with reflinks it only shares."""
    offset, rest = block_offset(block, size_bytes), size_bytes
    while rest > 0:
        done = os.copy_file_range(source, target, rest, offset, offset)
        if done == 0:
            return
        offset, rest = offset + done, rest - done

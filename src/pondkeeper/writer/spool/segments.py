"""The segments of a spool on disk: appended to by one thread, read by others as far as they are durable, removed whole."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pondkeeper.errors import OutcomeUnknown
from pondkeeper.files.durable import PRIVATE_FILE, sync_folder
from pondkeeper.writer.spool.log import (
    Draft,
    Entry,
    Group,
    encode_group,
    entries_of,
    new_segment_head,
    numbered_groups,
)

SUFFIX: Final = ".log"
DAMAGED_SUFFIX: Final = ".damaged"
MARK_EVERY_BYTES: Final = 256 * 1024
MARK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Where in a segment the group lies that begins with this place, and when it was written."""

    place: int
    offset: int
    written_at: float


@dataclass
class Segment:
    """A segment as far as it is durable. `marks` are few: from one of them a place is found by reading on."""

    path: Path
    segment_id: bytes
    next_place: int
    size_bytes: int
    is_damaged: bool = False
    marks: list[Mark] = field(default_factory=list)

    @property
    def first_place(self) -> int:
        return self.marks[0].place if self.marks else self.next_place

    def take(self, group: Group) -> None:
        """A group has become durable."""
        last = self.marks[-1] if self.marks else None
        if (
            last is None
            or group.offset - last.offset >= MARK_EVERY_BYTES
            or group.written_at - last.written_at >= MARK_EVERY_S
        ):
            self.marks.append(Mark(group.first_place, group.offset, group.written_at))
        self.next_place, self.size_bytes = group.next_place, max(self.size_bytes, group.end)

    def written_at(self, place: int) -> float | None:
        """About when the entry at this place was accepted."""
        return self.marks[self._mark_of(place)].written_at if self.marks else None

    def _mark_of(self, place: int) -> int:
        return max(0, bisect.bisect_right(self.marks, place, key=lambda mark: mark.place) - 1)

    def piece(self, place: int, at_least_bytes: int) -> Piece | None:
        """Whole groups that begin with the one of `place`, if it is here: some more than `at_least_bytes`, or to the end."""
        if not self.marks or place >= self.next_place:
            return None
        at = self._mark_of(place)
        begin, end = self.marks[at].offset, self.size_bytes
        for mark in self.marks[at + 1 :]:
            if mark.place > place and mark.offset - begin >= at_least_bytes:
                end = mark.offset
                break
        return Piece(self.path, self.segment_id, begin, end, place)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a segment that is durable and does not change: any thread may read it."""

    path: Path
    segment_id: bytes
    begin: int
    end: int
    place: int

    def entries(self) -> Iterator[Entry]:
        """Its entries from `place` on. Raises FileNotFoundError when they have had their outcome meanwhile."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            data = file.read(self.end - self.begin)
        for _, group in numbered_groups(data, self.segment_id):
            if group.next_place > self.place:
                yield from (entry for entry in entries_of(data, group) if entry.place >= self.place)


class SegmentFile:
    """The segment that is appended to. Belongs to one thread."""

    def __init__(self, folder: Path, first_place: int) -> None:
        self.path = folder / f"{first_place:016d}{SUFFIX}"
        self.segment_id, head = new_segment_head(first_place)
        self._number = 0
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        try:
            _write_all(self._descriptor, head)
            os.fsync(self._descriptor)
            sync_folder(folder)
        except BaseException:  # Why: whatever ended it, a file without a whole head must not stay behind.
            self.close()
            self.path.unlink(missing_ok=True)
            raise
        self.size_bytes = len(head)

    def append(self, first_place: int, drafts: Sequence[Draft]) -> Group:
        """Write a group and make it durable. Raises OSError: nothing of it is there; or OutcomeUnknown: nobody knows."""
        data, group = encode_group(self.segment_id, self._number, first_place, drafts)
        try:
            _write_all(self._descriptor, data)
        except OSError:
            self._cut_back()
            raise
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # Why no second try: the kernel may have dropped the pages, and would say nothing the next time.
            self._cut_back()
            raise _unknown(error) from error
        durable = Group(
            self.size_bytes, len(data), first_place, group.count, group.keyed, group.filed, group.written_at
        )
        self.size_bytes = durable.end
        self._number += 1
        return durable

    def _cut_back(self) -> None:
        """Take off what was written of a group."""
        try:
            os.ftruncate(self._descriptor, self.size_bytes)
            os.lseek(self._descriptor, self.size_bytes, os.SEEK_SET)
        except OSError as error:
            raise _unknown(error) from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _unknown(error: OSError) -> OutcomeUnknown:
    return OutcomeUnknown("The disk of the spool failed while it wrote.", private=str(error))


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def retire(segment: Segment) -> None:
    """Remove a segment of which every entry has its outcome; a damaged one is set aside for whoever looks into it."""
    if segment.is_damaged:
        set_aside(segment.path)
    else:
        segment.path.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Take a damaged segment out of the log, and keep it."""
    path.rename(path.with_suffix(DAMAGED_SUFFIX))

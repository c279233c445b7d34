"""The line of accepted ingests in memory: which segments there are, what of them waits, what was taken to be applied."""

from __future__ import annotations

import bisect
import time
from dataclasses import dataclass, field

from pondkeeper.writer.spool.log import Entry, Group
from pondkeeper.writer.spool.segments import Piece, Segment


@dataclass
class Line:
    """Places from `cursor` on wait, but for `cancelled` ones; those before `taken_to` are being applied."""

    segments: list[Segment] = field(default_factory=list)
    cursor: int = 0
    next_place: int = 0
    taken_to: int = 0
    cancelled: set[int] = field(default_factory=set)
    size_bytes: int = 0  # what the segments take on disk, applied entries in them included

    def __post_init__(self) -> None:
        self._measure()

    def _measure(self) -> None:
        self.size_bytes = sum(segment.size_bytes for segment in self.segments)

    @property
    def has_waiting(self) -> bool:
        """Whether there is anything to be applied."""
        return self.next_place - self.cursor > len(self.cancelled)

    @property
    def oldest_s(self) -> float:
        """About how long the first one has waited."""
        for segment in self.segments:
            if segment.next_place > self.cursor:
                written_at = segment.written_at(self.cursor)
                return max(0.0, time.time() - written_at) if written_at is not None else 0.0
        return 0.0

    @property
    def active(self) -> Segment | None:
        """The segment that was appended to last."""
        return self.segments[-1] if self.segments else None

    def take(self, segment: Segment, group: Group) -> None:
        """A group has become durable in this segment, which may be a new one."""
        if self.active is None or self.active.path != segment.path:
            self.segments.append(segment)
        self.segments[-1].take(group)
        self.next_place = group.next_place
        self._measure()

    def is_waiting(self, place: int) -> bool:
        """Whether the entry at this place has no outcome yet."""
        return self.cursor <= place < self.next_place and place not in self.cancelled

    def before(self, place: int) -> int:
        """How many wait before this one."""
        return place - self.cursor - sum(1 for each in self.cancelled if each < place)

    def piece(self, place: int, at_least_bytes: int) -> Piece | None:
        """What to read for the entries from `place` on; None when there are none."""
        at = bisect.bisect_right(self.segments, place, key=lambda segment: segment.next_place)
        if at == len(self.segments):
            return None
        return self.segments[at].piece(max(place, self.segments[at].first_place), at_least_bytes)

    def segment_of(self, piece: Piece) -> Segment | None:
        """The segment that a piece is of, if it is still there."""
        return next((each for each in self.segments if each.path == piece.path), None)

    def end_of(self, piece: Piece) -> int:
        """The place behind a piece of which nothing can be read."""
        segment = self.segment_of(piece)
        if segment is None:
            return piece.place + 1
        return next((mark.place for mark in segment.marks if mark.offset >= piece.end), segment.next_place)

    def advance(self, cursor: int) -> list[Segment]:
        """Everything before `cursor` has its outcome: the segments that nobody needs any more, but for the last one."""
        self.cursor = max(self.cursor, cursor)
        self.cancelled = {place for place in self.cancelled if place >= self.cursor}
        done = [segment for segment in self.segments[:-1] if segment.next_place <= self.cursor]
        self.segments = self.segments[len(done) :]
        self._measure()
        return done

    def drop_last(self) -> Segment | None:
        """Take out the last segment if everything in it has its outcome."""
        if self.active is None or self.active.next_place > self.cursor:
            return None
        dropped = self.segments.pop()
        self._measure()
        return dropped


def read(piece: Piece, most_entries: int, most_bytes: int) -> list[Entry]:
    """The first entries of a piece, within these bounds but at least one."""
    found: list[Entry] = []
    size_bytes = 0
    for entry in piece.entries():
        size_bytes += len(entry.body)
        if found and (len(found) >= most_entries or size_bytes > most_bytes):
            break
        found.append(entry)
    return found

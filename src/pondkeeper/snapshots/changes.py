"""Which blocks a version may have changed since the one before it: noted by the copier, kept as ranges in the manifest."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = list[tuple[int, int]]
"""Blocks of the database file, ascending and disjoint: each the first block and the one after the last."""

MAX_RANGES = 2000


class ChangesNoted:
    """What the source was seen to change since the version that was published last. What it does not know, it says."""

    def __init__(self) -> None:
        self.since: int | None = None
        self._written: set[int] | None = None

    @property
    def ranges(self) -> Ranges | None:
        """The blocks in use that may differ from version `since`; None when any may."""
        return None if self._written is None else as_ranges(self._written)

    def note(self, written: set[int] | None) -> None:
        """The source has moved on: these blocks may differ now; None when nobody can say which."""
        if self._written is not None:
            self._written = None if written is None else self._written | written

    def settle(self, version: int) -> None:
        """This version is published now: changes are counted from it on."""
        self.since, self._written = version, set()


def as_ranges(blocks: Iterable[int], most: int = MAX_RANGES) -> Ranges:
    """The blocks as ranges. Where there would be too many, neighbours are taken together: more is named than changed."""
    return _at_most(_joined((block, block + 1) for block in sorted(blocks)), most)


def union(one: Ranges | None, other: Ranges | None, most: int = MAX_RANGES) -> Ranges | None:
    """What either names; None when one of them is not known."""
    if one is None or other is None:
        return None
    return _at_most(_joined(sorted([*one, *other])), most)


def _joined(ranges: Iterable[tuple[int, int]], gap: int = 0) -> Ranges:
    """Ascending ranges, with those that touch, or are `gap` blocks apart, made into one."""
    found: Ranges = []
    for first, end in ranges:
        if found and first <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((first, end))
    return found


def _at_most(ranges: Ranges, most: int) -> Ranges:
    gap = 1
    while len(ranges) > most:
        ranges, gap = _joined(ranges, gap), 2 * gap
    return ranges

"""Is there an order of the writes to one key that explains everything that was answered about it?

A search with backtracking (Wing and Gong's), made short by two things: what only looks, without changing the row, is put
into the order as soon as it fits, which can never be wrong; and what is already known to lead nowhere is not tried again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from campaigns.operations import BROKEN, DELETE, INSERT, READ, REFUSED, UNKNOWN, UPDATE, Operation

ABSENT = None


@dataclass(frozen=True)
class Write:
    """A write to the key. It is in no version below `lowest`, and in every one from `highest` on."""

    kind: str
    value: int | None
    changed: bool
    begin: float
    end: float
    lowest: float
    highest: float

    @property
    def only_looks(self) -> bool:
        """Whether the row was as before: an insert that met a row, an update or a delete that met none."""
        return not self.changed

    def fits(self, state: int | None) -> bool:
        """Whether it can have had its answer when the row was like that."""
        is_there = state is not ABSENT
        return is_there != self.changed if self.kind == INSERT else is_there == self.changed

    def after(self, state: int | None) -> int | None:
        """What the row is after it."""
        if not self.changed:
            return state
        return ABSENT if self.kind == DELETE else self.value


@dataclass(frozen=True)
class Sight:
    """What a version has of the key; it was seen at `end` for the first time."""

    version: float
    value: int | None
    end: float


def check_key(operations: Sequence[Operation], final: int | None, faults: Sequence[float]) -> str | None:
    """Why no order explains these operations on one key and what was there at the end; None when there is one."""
    certain = [_write(each, faults) for each in operations if _is_write(each) and each.outcome != UNKNOWN]
    perhaps = [_write(each, faults) for each in operations if _is_write(each) and each.outcome == UNKNOWN]
    return _Search(certain, perhaps, _sights(operations, final)).explain()


def _is_write(operation: Operation) -> bool:
    return operation.kind in (INSERT, UPDATE, DELETE) and operation.outcome != REFUSED


def _write(operation: Operation, faults: Sequence[float]) -> Write:
    """Why not exact over a fault: a write that is looked up by its key afterwards gets a version that surely has it."""
    begin, end = operation.begin, operation.end
    if operation.outcome == UNKNOWN:
        return Write(operation.kind, operation.value, changed=True, begin=begin, end=math.inf, lowest=0, highest=math.inf)
    if operation.outcome == BROKEN or operation.version is None:
        return Write(operation.kind, operation.value, changed=False, begin=begin, end=end, lowest=0, highest=math.inf)
    is_exact = not any(begin <= fault <= end for fault in faults)
    lowest = operation.version - 1 if is_exact else 0
    return Write(operation.kind, operation.value, bool(operation.changed), begin, end, lowest, operation.version)


def _sights(operations: Sequence[Operation], final: int | None) -> list[Sight]:
    first: dict[int, Sight] = {}
    for read in operations:
        if read.kind == READ and read.version is not None:
            known = first.get(read.version)
            end = min(read.end, known.end) if known else read.end
            first[read.version] = Sight(read.version, read.value, end)
    sights = [Sight(math.inf, final, math.inf)]
    for version in sorted(first, reverse=True):  # Why: what must follow a later version must follow the earlier ones too.
        sights.append(Sight(version, first[version].value, min(first[version].end, sights[-1].end)))
    return sights[::-1]


class _Search:
    """Puts writes and sights into one order, and takes them out again where that leads nowhere."""

    def __init__(self, certain: list[Write], perhaps: list[Write], sights: list[Sight]) -> None:
        self._writes = sorted(certain, key=lambda write: write.begin)
        self._perhaps = perhaps
        self._sights = sights
        self._lowest_after = _suffix_minima([write.highest for write in self._writes])
        self._known: set[_Point] = set()
        self._furthest = (-1, "")

    def explain(self) -> str | None:
        stack = [self._settled(_Point(0, 0, 0, 0, ABSENT))]
        while stack:
            point = stack.pop()
            if point.first == len(self._writes) and point.sights == len(self._sights):
                return None
            if point in self._known:
                continue
            self._known.add(point)
            self._note(point)
            stack += [self._settled(following) for following in self._following(point)]
        return f"no order of its writes explains the answers: {self._furthest[1]}"

    def _note(self, point: _Point) -> None:
        """Remember the furthest point that was reached, which tells people where to look."""
        if point.sights > self._furthest[0] and point.sights < len(self._sights):
            sight = self._sights[point.sights]
            where = "at the end" if sight.version == math.inf else f"in version {sight.version:g}"
            self._furthest = (point.sights, f"{where} it was {sight.value}, before that at best {point.state}")

    def _settled(self, point: _Point) -> _Point:
        """The point after everything that only looks and fits now."""
        while True:
            following = self._looked(point)
            if following is None:
                return point
            point = following

    def _looked(self, point: _Point) -> _Point | None:
        for index, write in self._open(point):
            if write.only_looks and write.fits(point.state) and self._may(write, point):
                return self._placed(point, index)
        if point.sights < len(self._sights):
            sight = self._sights[point.sights]
            is_due = self._earliest_highest(point) > sight.version or point.first == len(self._writes)
            if sight.value == point.state and is_due:
                return replace(point, sights=point.sights + 1)
        return None

    def _following(self, point: _Point) -> Iterator[_Point]:
        for number, write in enumerate(self._perhaps):
            if not point.taken >> number & 1 and write.fits(point.state) and self._may(write, point):
                yield replace(point, taken=point.taken | 1 << number, state=write.after(point.state))
        for index, write in self._open(point):
            if not write.only_looks and write.fits(point.state) and self._may(write, point):
                yield self._placed(point, index)

    def _may(self, write: Write, point: _Point) -> bool:
        """Whether no version, and no write with a lower one, must come before it."""
        if write.lowest >= self._earliest_highest(point):
            return False
        if point.sights == len(self._sights):
            return True
        sight = self._sights[point.sights]
        return write.lowest <= sight.version and write.begin <= sight.end

    def _open(self, point: _Point) -> list[tuple[int, Write]]:
        """The writes that real time allows to be next: no other one was answered before they were sent."""
        earliest_end, found = math.inf, []
        for index in range(point.first, len(self._writes)):
            write = self._writes[index]
            if write.begin > earliest_end:
                break
            if not point.has(index):
                found.append((index, write))
                earliest_end = min(earliest_end, write.end)
        return [(index, write) for index, write in found if write.begin <= earliest_end]

    def _earliest_highest(self, point: _Point) -> float:
        """The lowest `highest` of all writes that are not in the order yet."""
        reach = point.first + point.ahead.bit_length()
        within = [self._writes[index].highest for index in range(point.first, reach) if not point.has(index)]
        return min([*within, self._lowest_after[min(reach, len(self._writes))]])

    def _placed(self, point: _Point, index: int) -> _Point:
        ahead, first = point.ahead | 1 << (index - point.first), point.first
        while ahead & 1:
            ahead, first = ahead >> 1, first + 1
        return _Point(first, ahead, point.sights, point.taken, self._writes[index].after(point.state))


@dataclass(frozen=True)
class _Point:
    """How far the order is: all writes before `first` are in it, and those of the bits in `ahead` behind it."""

    first: int
    ahead: int
    sights: int
    taken: int
    state: int | None

    def has(self, index: int) -> bool:
        """Whether the write is in the order already."""
        return index < self.first or bool(self.ahead >> (index - self.first) & 1)


def _suffix_minima(values: list[float]) -> list[float]:
    minima = [math.inf]
    for value in reversed(values):
        minima.append(min(value, minima[-1]))
    return minima[::-1]


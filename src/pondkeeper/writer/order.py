"""The order of what waits: three priorities, first come first served within each, and none of them starves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pondkeeper.writer.write import Write


class Priority(Enum):
    """How soon a write wants its turn."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BACKGROUND = "background"


_I, _N, _B = Priority
# Why not strictly by priority: whoever waits behind a steady stream of others gets a turn in every twelve.
TURNS = (_I, _I, _N, _I, _I, _N, _I, _I, _B, _I, _N, _I)


class Order:
    """Writes that wait. Those that a dead writer left come first, in the order that they had."""

    def __init__(self) -> None:
        self._left: deque[Write] = deque()
        self._lanes: dict[Priority, deque[Write]] = {priority: deque() for priority in Priority}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._left) + sum(map(len, self._lanes.values()))

    def __contains__(self, write: Write) -> bool:
        return write in self._left or write in self._lanes[write.priority]

    def __iter__(self) -> Iterator[Write]:
        """All of them in the order in which they would have their turns."""
        yield from self._left
        lanes = {priority: iter(lane) for priority, lane in self._lanes.items()}
        turn = self._turn
        while lanes:
            priority = TURNS[turn % len(TURNS)]
            if priority in lanes:
                write = next(lanes[priority], None)
                if write is None:
                    del lanes[priority]
                else:
                    yield write
            turn += 1

    def append(self, write: Write) -> None:
        """Take a new one in, behind all of its priority."""
        self._lanes[write.priority].append(write)

    def put_back(self, write: Write) -> None:
        """Take in, before all others, one that had its turn already."""
        self._left.appendleft(write)

    def first(self) -> Write | None:
        """Whose turn it is."""
        return self._left[0] if self._left else next(iter(self), None)

    def pop(self) -> Write:
        """Take out whose turn it is; raises IndexError when nobody waits."""
        if self._left:
            return self._left.popleft()
        for _ in TURNS:
            lane = self._lanes[TURNS[self._turn]]
            self._turn = (self._turn + 1) % len(TURNS)
            if lane:
                return lane.popleft()
        raise IndexError("nobody waits")

    def remove(self, write: Write) -> None:
        """Take out one that waits, wherever it stands."""
        (self._left if write in self._left else self._lanes[write.priority]).remove(write)

    def before(self, write: Write) -> int:
        """How many have their turn before it."""
        return next((place for place, other in enumerate(self) if other is write), len(self))

"""The line of queries that wait for a reader: a fair turn for every caller, however many of his queries wait.

A caller is a key. The next turn is of the caller who has the fewest readers; among equals they take turns. When the line
is full, whoever has the most in it gives a place up, so that one who floods it pushes out himself and nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from pondkeeper.errors import KeeperStopping, QueueFull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pondkeeper.readers.reader import Reader

    Waiter = asyncio.Future[Reader]

RETRY_AFTER_S = 1
OTHERS_LATELY_S = 5.0


class Line:
    """Who waits, in which order; what each caller has; and who has asked lately."""

    def __init__(self, max_waiting: int, readers: int) -> None:
        self._max_waiting = max_waiting
        self._most_kept_free = readers // 2
        self._waiting: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._length = 0
        self._has: Counter[str] = Counter()
        self._asked_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return self._length

    # What callers have

    def asks(self, caller: str) -> None:
        """The caller has just asked."""
        now = time.monotonic()
        self._asked_at[caller] = now
        self._asked_at.move_to_end(caller)
        while now - next(iter(self._asked_at.values())) > OTHERS_LATELY_S:
            self._asked_at.popitem(last=False)

    def takes(self, caller: str) -> None:
        """The caller has one reader more."""
        self._has[caller] += 1

    def gives_back(self, caller: str) -> None:
        """The caller has one reader less."""
        self._has[caller] -= 1
        if self._has[caller] <= 0:
            del self._has[caller]

    def may_take(self, caller: str, free: int) -> bool:
        """Whether one of so many free readers is for this caller: who has one leaves one free for each other who asks, at most
        half of them all.

        Why: long queries of one key would else have all readers, and a turn that is fair comes only when one of them ends.
        """
        return not self._has[caller] or free > sum(1 for _ in islice(self._others(caller), self._most_kept_free))

    def is_greedy(self, caller: str) -> bool:
        """Whether the caller has a reader or queries in the line already, while others ask: then theirs go first."""
        return bool(self._has[caller] or self._waiting.get(caller)) and any(True for _ in self._others(caller))

    def _others(self, caller: str) -> Iterator[str]:
        """The others who have asked lately, the latest first."""
        earliest = time.monotonic() - OTHERS_LATELY_S
        lately = takewhile(lambda asked: asked[1] >= earliest, reversed(self._asked_at.items()))
        return (name for name, _ in lately if name != caller)

    # Who waits

    def join(self, caller: str, waiter: Waiter) -> None:
        """Stand in line. Raises QueueFull, or lets the newest of whoever has the most in a full line meet it."""
        own = len(self._waiting.get(caller, ()))
        if self._length >= self._max_waiting:
            greediest = max(self._waiting, key=lambda name: len(self._waiting[name]), default=caller)
            if greediest == caller or len(self._waiting.get(greediest, ())) <= own + 1:
                raise self._full()
            pushed_out = self._waiting[greediest][-1]
            self.leave(greediest, pushed_out)
            if not pushed_out.done():
                pushed_out.set_exception(self._full())
        self._waiting.setdefault(caller, deque()).append(waiter)
        self._length += 1

    def leave(self, caller: str, waiter: Waiter) -> None:
        """Stand in line no more; nothing where it does not."""
        waiting = self._waiting.get(caller)
        if waiting is None or waiter not in waiting:
            return
        waiting.remove(waiter)
        self._length -= 1
        if not waiting:
            del self._waiting[caller]

    def next(self, *, free: int) -> tuple[str, Waiter] | None:
        """Whose turn it is, and who of his waits, taken out of the line. `free`: so many readers are free, the one to be given among them."""
        for caller in sorted(self._waiting, key=lambda name: self._has[name]):  # stable: among equals as they stand
            if not self.may_take(caller, free):
                continue
            waiting = self._waiting[caller]
            while waiting:
                waiter = waiting.popleft()
                self._length -= 1
                if not waiter.done():
                    self._waiting.move_to_end(caller)
                    if not waiting:
                        del self._waiting[caller]
                    return caller, waiter
            del self._waiting[caller]
        return None

    def close(self) -> None:
        """Nobody gets a turn any more: all that wait meet KeeperStopping."""
        for waiting in self._waiting.values():
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(KeeperStopping())

    def _full(self) -> QueueFull:
        return QueueFull(f"{self._max_waiting} queries wait for a reader already.", retry_after_s=RETRY_AFTER_S)

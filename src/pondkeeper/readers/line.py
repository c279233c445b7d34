"""The line of queries that wait for a reader: a fair turn for every caller, however many of his queries wait.

A caller is a key. The next turn is of the caller who has the fewest readers; among equals they take turns. When the line
is full, whoever has the most in it gives a place up, so that one who floods it pushes out himself and nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

from pondkeeper.errors import KeeperStopping, QueueFull

if TYPE_CHECKING:
    from pondkeeper.readers.reader import Reader

    Waiter = asyncio.Future[Reader]

RETRY_AFTER_S = 1
OTHERS_LATELY_S = 5.0


class Line:
    """Who waits, in which order; what each caller has; and who has asked lately."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
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

    def may_take_the_last(self, caller: str) -> bool:
        """Whether the last free reader is for this caller: it stays free for the others where there are any.

        Why: long queries of one key would else have all readers, and a turn that is fair comes only when one of them ends.
        """
        if not self._has[caller]:
            return True
        earliest = time.monotonic() - OTHERS_LATELY_S
        return all(name == caller or at < earliest for name, at in reversed(self._asked_at.items()))

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

    def next(self, *, is_last: bool) -> tuple[str, Waiter] | None:
        """Whose turn it is, and who of his waits, taken out of the line. `is_last`: no other reader is free."""
        for caller in sorted(self._waiting, key=lambda name: self._has[name]):  # stable: among equals as they stand
            if is_last and not self.may_take_the_last(caller):
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

"""The writes of a pipeline that have no outcome yet: gathered, sent, or to be sent again."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from pondkeeper.client.answer import Outcome
from pondkeeper.client.transport import LEAST_WAIT_S, MOST_WAIT_S, REPEATED, VERDICTS
from pondkeeper.errors import InvalidRequest, OutcomeUnknown, PondkeeperError
from pondkeeper.writer.wire import WireAnswer


class PendingWrite(Future[Outcome]):
    """The outcome of a write on a pipeline."""

    def cancel(self) -> bool:
        """A write that was handed over is not taken back: always False."""
        return False


class Pending:
    """One write: its bytes on the wire but for the number, its future, and what has been tried."""

    __slots__ = ("_give_up_at", "_tries", "body", "future", "has_key", "is_single", "is_unknown", "number")

    def __init__(self, body: bytes, *, is_single: bool, has_key: bool) -> None:
        self.body = body
        self.is_single = is_single
        self.has_key = has_key
        self.future = PendingWrite()
        self.number = 0
        self.is_unknown = False
        self._tries = 0
        self._give_up_at = 0.0

    @property
    def wire(self) -> bytes:
        """It as an element of a WRITES frame."""
        return b"[%d,%b" % (self.number, self.body[1:])

    def next_try_at(self, policy: Retries, at_least_s: float = 0.0) -> float | None:
        """When it may be sent again, counting this as a try; None when it may not."""
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + policy.for_s
        wait_s = min(LEAST_WAIT_S * 2.0 ** min(self._tries, 10), MOST_WAIT_S) * random.uniform(0.5, 1.0)
        at = now + max(at_least_s, wait_s)
        if not self.has_key or at > self._give_up_at or (policy.count is not None and self._tries >= policy.count):
            return None
        self._tries += 1
        return at

    def is_late(self, policy: Retries) -> bool:
        """Whether it has waited for a connection for too long."""
        if policy.count == 0:
            return True
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + policy.for_s
        return now >= self._give_up_at

    def fail(self, error: PondkeeperError) -> None:
        """It ends with this error; an earlier try whose outcome nobody knows leaves it unknown."""
        if self.is_unknown and not isinstance(error, (OutcomeUnknown, *VERDICTS)):
            error = OutcomeUnknown(f"The connection was lost, and then: {error.message}", cause=error.code)
        self.future.set_exception(error)


class Retries:
    """For how long, and how often (None: as often as the time allows), a write is sent again."""

    def __init__(self, for_s: float, count: int | None) -> None:
        self.for_s = for_s
        self.count = 0 if for_s <= 0 else count


class PendingWrites:
    """All of them, in their order. One thread receives answers; any thread adds and sends."""

    def __init__(self, policy: Retries) -> None:
        self._policy = policy
        self._changed = threading.Condition()
        self._unsent: deque[Pending] = deque()
        self._sent: dict[int, Pending] = {}
        self._later: list[tuple[float, Pending]] = []
        self._last_number = 0
        self._size_bytes = 0
        self._window_writes = 0
        self._window_bytes = 0
        self._is_connected = False
        self._is_closed = False

    # Adding and sending, on any thread

    def add(self, one: Pending, *, may_wait: bool) -> int:
        """Take it in behind all others, when the keeper's window has room; how many are gathered now."""
        with self._changed:
            while may_wait and self._is_full(len(one.body)) and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise InvalidRequest("The pipeline is closed.", remedy="Open another one.")
            self._last_number += 1
            one.number = self._last_number
            self._unsent.append(one)
            self._size_bytes += len(one.body)
            if not self._is_connected:
                self._changed.notify_all()
            return len(self._unsent)

    def _is_full(self, more_bytes: int) -> bool:
        count = len(self._unsent) + len(self._sent) + len(self._later)
        return count >= self._window_writes or (count > 0 and self._size_bytes + more_bytes > self._window_bytes)

    @property
    def nothing_is_sent(self) -> bool:
        """Whether the keeper has nothing to answer."""
        return not self._sent

    def take_unsent(self, max_bytes: int) -> list[bytes]:
        """The next of those that are gathered, as bytes on the wire: they count as sent."""
        taken: list[bytes] = []
        size_bytes = 2
        with self._changed:
            while self._unsent and self._is_connected:
                wire = self._unsent[0].wire
                size_bytes += len(wire) + 1
                if taken and size_bytes > max_bytes:
                    break
                one = self._unsent.popleft()
                self._sent[one.number] = one
                taken.append(wire)
        return taken

    def wait_until_empty(self, timeout_s: float | None) -> bool:
        """Wait until every write has its outcome; False when that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._unsent or self._sent or self._later), timeout_s)

    # Answers, on the receiving thread

    def answered(self, answers: Iterable[WireAnswer]) -> None:
        """These have an answer: their futures get it, unless they are to be tried again."""
        ended: list[Pending] = []
        for answer in answers:
            one = self._sent.get(answer.number)
            if one is None:
                continue
            if answer.error is None:
                rows: Any = answer.rows_changed or []
                one.future.set_result(Outcome("committed", answer.version, rows[0] if one.is_single else rows))
                ended.append(one)
            elif not self._tries_again(one, PondkeeperError.from_wire(answer.error)):
                ended.append(one)
        with self._changed:
            for one in ended:
                del self._sent[one.number]
                self._size_bytes -= len(one.body)
            self._changed.notify_all()

    def _tries_again(self, one: Pending, error: PondkeeperError) -> bool:
        one.is_unknown = one.is_unknown or isinstance(error, OutcomeUnknown)
        wait_s = error.details.get("retry_after_s")
        at = None
        if isinstance(error, REPEATED) or wait_s is not None:
            at = one.next_try_at(self._policy, wait_s or 0.0)
        if at is None:
            one.fail(error)
            return False
        with self._changed:
            del self._sent[one.number]
            self._later.append((at, one))
        return True

    def next_repeat_s(self) -> float | None:
        """Seconds until one is to be sent again; None when there is none."""
        if not self._later:
            return None
        return max(0.0, min(at for at, _ in self._later) - time.monotonic())

    def put_back_due(self) -> None:
        """Gather those whose time has come, before all others."""
        now = time.monotonic()
        with self._changed:
            self._put_back([one for at, one in self._later if at <= now])
            self._later = [(at, one) for at, one in self._later if at > now]

    def _put_back(self, these: Iterable[Pending]) -> None:
        self._unsent.extendleft(sorted(these, key=lambda one: one.number, reverse=True))

    # The connection, on the receiving thread

    def opened(self, window_writes: int, window_bytes: int) -> None:
        """There is a connection, and so much may be on its way over it."""
        with self._changed:
            self._window_writes, self._window_bytes = window_writes, window_bytes
            self._is_connected = True
            self._changed.notify_all()

    def lost(self) -> None:
        """The connection is gone, and with it what was to be answered: that is sent again, or unknown."""
        with self._changed:
            self._is_connected = False
            again = [one for _, one in self._later]
            for one in self._sent.values():
                one.is_unknown = True
                if one.next_try_at(self._policy) is None:
                    self._end(one, OutcomeUnknown("The connection was lost before the keeper said what became of the write."))
                else:
                    again.append(one)
            self._sent.clear()
            self._later.clear()
            self._put_back(again)
            self._changed.notify_all()

    def wait_for_work(self) -> None:
        """Wait until there is something to send, or the pipeline is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._unsent or self._is_closed)

    def end_late(self, error: PondkeeperError) -> None:
        """There is no connection, by this error: those that have waited for one for too long end with it."""
        with self._changed:
            late = [one for one in self._unsent if one.is_late(self._policy)]
            for one in late:
                self._unsent.remove(one)
                self._end(one, error.again())
            self._changed.notify_all()

    def end_all(self, error: PondkeeperError) -> None:
        """Nothing will be sent any more: what was is unknown, the rest ends with the error."""
        with self._changed:
            for one in self._sent.values():
                one.is_unknown = True
            for one in [*self._sent.values(), *(one for _, one in self._later), *self._unsent]:
                self._end(one, error.again())
            for left in (self._sent, self._later, self._unsent):
                left.clear()
            self._changed.notify_all()

    def _end(self, one: Pending, error: PondkeeperError) -> None:
        self._size_bytes -= len(one.body)
        one.fail(error)

    def close(self) -> None:
        """Take nothing in any more, and wake whoever waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

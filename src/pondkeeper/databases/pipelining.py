"""Many writes of one connection on their way through the queue of a database, each with an outcome of its own.

Everything here is called on the event loop, without a task or a timer for each write: a pipeline carries tens of
thousands of them a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pondkeeper.databases.requests import statements_digest
from pondkeeper.databases.running import Running, RunningQueries
from pondkeeper.errors import KeeperStopping, OutcomeUnknown, PondkeeperError, QueryCancelled, QueueFull
from pondkeeper.writer.order import Priority
from pondkeeper.writer.wire import WireAnswer, WireWrite
from pondkeeper.writer.write import Demand, Identity, Write

if TYPE_CHECKING:
    from pondkeeper.writer.queue import WriteQueue

ROOM_POLL_S = 0.01


@dataclass(slots=True)
class Tally:
    """Writes of the same statements that ended in the same way at the same time: what is counted and recorded of them."""

    sql: str
    outcome: str
    count: int = 0
    rows: int = 0
    version: int = 0
    longest_s: float = 0.0


OnAnswers = Callable[[list[WireAnswer], Iterable[Tally]], None]


@dataclass(frozen=True)
class Limits:
    """The longest that a write may wait for its turn, and then run."""

    wait_s: float
    timeout_s: float


_PRIORITIES = {priority.value: priority for priority in Priority}


class _Burst:
    """Writes that came in one frame with one deadline, and the timer that they share."""

    def __init__(self) -> None:
        self.open: dict[int, _OnItsWay] = {}
        self.timer: asyncio.TimerHandle | None = None

    def ended(self, number: int) -> None:
        del self.open[number]
        if not self.open and self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _OnItsWay:
    """One write from its frame to its answer; what the queue tells of its outcome, it tells its line."""

    __slots__ = ("_is_done", "_line", "burst", "demand", "number", "size_bytes", "write")

    def __init__(self, line: PipelinedWrites, number: int, size_bytes: int, demand: Demand, burst: _Burst) -> None:
        self._line = line
        self._is_done = False
        self.number = number
        self.size_bytes = size_bytes
        self.demand = demand
        self.burst = burst
        self.write: Write | None = None

    def done(self) -> bool:
        return self._is_done

    def set_result(self, outcome: dict[str, Any]) -> None:
        self._is_done = True
        self._line.ended(self, WireAnswer(self.number, outcome["version"], outcome["rows_changed"]), "committed")

    def set_exception(self, error: PondkeeperError) -> None:
        self._is_done = True
        self._line.ended(self, WireAnswer(self.number, error=error.to_wire(with_private=True)), error.code)


class PipelinedWrites:
    """The line of one connection's writes, in their order.

    `committed(version, count)` is told of commits and the newest version that they are in.
    `on_answers(answers, tallies)` gets what has ended since the last call, one by one and summed up. What the queue has no room for waits here, and no longer than its deadline.
    """

    def __init__(
        self,
        name: str,
        queue: WriteQueue,
        running: RunningQueries,
        committed: Callable[[int, int], None],
        *,
        key_id: str,
        client: str,
        on_answers: OnAnswers,
    ) -> None:
        self._name = name
        self._queue = queue
        self._running = running
        self._committed = committed
        self._key_id, self._client = key_id, client
        self._on_answers = on_answers
        self._id = running.new_id()
        self._open: dict[int, _OnItsWay] = {}
        self._outside: deque[_OnItsWay] = deque()
        self._room_timer: asyncio.TimerHandle | None = None
        self._answers: list[WireAnswer] = []
        self._tallies: dict[tuple[str, str], Tally] = {}
        self.size_bytes = 0

    @property
    def count(self) -> int:
        """How many writes have no answer yet."""
        return len(self._open)

    def refuse(self, writes: Sequence[WireWrite], error: PondkeeperError) -> None:
        """Answer writes that are not taken."""
        refusal = error.to_wire(with_private=True)
        tallies = Counter("; ".join(text for text, _ in wire.statements) for wire in writes)
        answers = [WireAnswer(wire.number, error=refusal) for wire in writes]
        self._on_answers(answers, [Tally(sql, error.code, count) for sql, count in tallies.items()])

    def has(self, number: int) -> bool:
        """Whether the write of that number is on its way."""
        return number in self._open

    def take(self, writes: Sequence[WireWrite], limits: Limits, size_bytes: int) -> None:
        """Take them behind all that came before; each may wait and run for as long as the limits say, or as it asks.

        `size_bytes` is that of all of them together.
        """
        bursts: dict[float, _Burst] = {}
        share_bytes = size_bytes // len(writes)
        self.size_bytes += share_bytes * len(writes)
        for wire in writes:
            wait_s = limits.wait_s if wire.wait_s is None else min(wire.wait_s, limits.wait_s)
            burst = bursts.get(wait_s)
            if burst is None:
                burst = bursts[wait_s] = _Burst()
            one = _OnItsWay(self, wire.number, share_bytes, self._demand(wire, wait_s, limits.timeout_s), burst)
            self._open[wire.number] = burst.open[wire.number] = one
            self._outside.append(one)
        for wait_s, burst in bursts.items():
            at_s = self._queue.patience_s(wait_s)
            burst.timer = asyncio.get_running_loop().call_later(at_s, self._end_of_patience, burst)
        self._admit()

    def _demand(self, wire: WireWrite, wait_s: float, timeout_s: float) -> Demand:
        return Demand(
            f"{self._id}-{wire.number}",
            wire.statements,
            timeout_s if wire.timeout_s is None else min(wire.timeout_s, timeout_s),
            wait_s,
            identity=None if wire.key is None else Identity(wire.key, statements_digest(wire.statements)),
            priority=_PRIORITIES[wire.priority],
            key_id=self._key_id,
            client=self._client,
        )

    def _admit(self) -> None:
        """Let into the queue what it has room for."""
        room = self._queue.room if self._outside else 0
        while self._outside and room > 0:
            one = self._outside.popleft()
            if not one.done():
                room -= 1
                self._submit(one)
        if self._outside and self._room_timer is None:
            self._room_timer = asyncio.get_running_loop().call_later(ROOM_POLL_S, self._look_for_room)

    def _submit(self, one: _OnItsWay) -> None:
        demand = one.demand
        sql = demand.statements[0][0]
        entry = Running(demand.write_id, "write", self._name, sql, self._key_id, self._client, one.set_exception)
        try:
            write = one.write = self._queue.submit(demand, one, entry.has_its_turn)
        except PondkeeperError as error:  # the keeper stops
            one.set_exception(error)
            return
        write.size_bytes = one.size_bytes
        entry.stop = partial(self._queue.stop_write, write)
        self._running.add(entry)

    def _look_for_room(self) -> None:
        self._room_timer = None
        self._admit()

    def _end_of_patience(self, burst: _Burst) -> None:
        burst.timer = None
        for one in list(burst.open.values()):
            if one.write is not None:
                self._queue.stop_waiting(one.write)
            else:
                one.set_exception(QueueFull("The write waited in vain for a place in the queue.", retry_after_s=1))

    def ended(self, one: _OnItsWay, answer: WireAnswer, outcome: str) -> None:
        """A write has its outcome."""
        del self._open[one.number]
        self.size_bytes -= one.size_bytes
        one.burst.ended(one.number)
        self._running.remove(one.demand.write_id)
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._flush)
        self._answers.append(answer)
        self._count(one, answer, outcome)

    def _count(self, one: _OnItsWay, answer: WireAnswer, outcome: str) -> None:
        statements = one.demand.statements
        sql = statements[0][0] if len(statements) == 1 else "; ".join(text for text, _ in statements)
        tally = self._tallies.get((sql, outcome))
        if tally is None:
            # Why the first one's time: of equal writes that end together, it has waited longest.
            longest_s = one.write.age_s if one.write is not None else 0.0
            tally = self._tallies[sql, outcome] = Tally(sql, outcome, longest_s=longest_s)
        tally.count += 1
        tally.version = max(tally.version, answer.version)
        tally.rows += sum(answer.rows_changed) if answer.rows_changed else 0

    def _flush(self) -> None:
        """Tell what has ended, all at once, and let others into the queue in their place."""
        answers, tallies = self._answers, self._tallies.values()
        if not answers:
            return
        self._answers, self._tallies = [], {}
        for tally in tallies:
            if tally.outcome == "committed":
                self._committed(tally.version, tally.count)
        self._on_answers(answers, tallies)
        self._admit()

    def drop(self) -> None:
        """The client has gone: what waits is dropped, what has begun goes on to its end."""
        reason = QueryCancelled("The write was dropped because its client went away.")
        self._stop(reason, begun=None)

    def stop(self) -> None:
        """The keeper's grace is over: what waits is refused, and of what has begun nobody knows what becomes."""
        self._stop(KeeperStopping(), begun=OutcomeUnknown("The keeper stopped before it knew what became of the write."))
        self._flush()

    def _stop(self, waiting: PondkeeperError, begun: PondkeeperError | None) -> None:
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
        self._outside.clear()
        for one in list(self._open.values()):
            if one.write is None:
                one.set_exception(waiting)
            elif not one.write.has_begun:
                self._queue.stop_write(one.write, waiting)
            elif begun is not None:
                one.set_exception(begun)

"""One write on its way: what was asked, by whom, and where it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pondkeeper.errors import OutcomeUnknown, PondkeeperError
from pondkeeper.writer.order import Priority

SHOWN_SQL_CHARS = 200


@dataclass(frozen=True)
class Identity:
    """By what a repeated write is known: the key that its client chose, and a digest of its statements."""

    key: str
    digest: str


@dataclass(frozen=True)
class Demand:
    """What is asked of the queue: an atomic list of statements, and who asks.

    With `load` (see writer/staged.py) it is staged rows, and `statements` only names them in lists; `on_settled` is called
    when nobody needs their file any more. It may wait for its turn for `wait_s` (None: as long as it may run), and run
    for `timeout_s` once it has begun.
    """

    write_id: str
    statements: list[tuple[str, Any]]
    timeout_s: float
    wait_s: float | None = None
    identity: Identity | None = None
    priority: Priority = Priority.INTERACTIVE
    key_id: str | None = None
    client: str | None = None
    load: dict[str, Any] | None = None
    on_settled: Callable[[], None] = lambda: None


class Ending(Protocol):
    """Who is told, once, what became of a write: a future, or what stands in its place."""

    def done(self) -> bool:
        """Whether it was told."""

    def set_result(self, outcome: dict[str, Any], /) -> None:
        """It is committed: `version` and `rows_changed`."""

    def set_exception(self, error: PondkeeperError, /) -> None:
        """It ended with this error."""


@dataclass(eq=False)
class Write:
    """A demand in the queue; `outcome` is what became of it. Number 0: no writer has it.

    `deadline` is on the event loop's clock: for its turn to come, and from its turn on for its end.
    """

    demand: Demand
    deadline: float
    outcome: Ending
    on_begun: Callable[[], None] = lambda: None
    number: int = 0
    has_begun: bool = False
    has_had_a_turn: bool = False
    is_committing: bool = False
    is_suspect: bool = False
    may_be_applied: bool = False
    reason: PondkeeperError | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    asked_ns: int = field(default_factory=time.monotonic_ns)

    @property
    def priority(self) -> Priority:
        return self.demand.priority

    @property
    def age_s(self) -> float:
        return (time.monotonic_ns() - self.asked_ns) / 1e9

    @property
    def wait_s(self) -> float:
        """How long it may wait for its turn."""
        return self.demand.timeout_s if self.demand.wait_s is None else self.demand.wait_s

    def begin(self, deadline: float) -> None:
        """Its turn has come: from now on its time to run counts."""
        self.has_begun, self.has_had_a_turn, self.deadline = True, True, deadline
        self.on_begun()

    def lose_turn(self, now: float) -> None:
        """The writer that had it is gone: it waits for the successor, as long as it could have before."""
        self.number, self.has_begun, self.is_committing = 0, False, False
        self.deadline = max(self.deadline, now + self.wait_s - self.age_s)

    @cached_property
    def size_bytes(self) -> int:
        """About how long its frame will be."""
        return sum(len(sql) + len(repr(parameters)) for sql, parameters in self.demand.statements)

    def settle(self, error: PondkeeperError) -> None:
        """It ended with this error, unless its outcome is known already."""
        if self.may_be_applied and not isinstance(error, OutcomeUnknown):
            error = OutcomeUnknown(f"The commit failed in mid-air, and then: {error.message}", cause=error.code)
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def describe(self) -> dict[str, Any]:
        """The entry as the list of the queue shows it."""
        demand = self.demand
        return {
            "id": demand.write_id,
            "kind": "write" if demand.load is None else "load" if "plan" in demand.load else "ingest",
            "priority": demand.priority.value,
            "state": "committing" if self.is_committing else "running" if self.has_begun else "waiting",
            "age_ms": round(self.age_s * 1000, 1),
            "statements": len(demand.statements),
            "sql": demand.statements[0][0][:SHOWN_SQL_CHARS],
            "idempotency_key": demand.identity.key if demand.identity else None,
            "key_id": demand.key_id,
            "client": demand.client,
        }

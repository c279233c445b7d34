"""A batch in the writer process: writes that the queue handed over at once, and what has become of each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pondkeeper.engine.writing import LoneInsert, Transaction
from pondkeeper.errors import PondkeeperError, QueryCancelled
from pondkeeper.writer.planned import PlannedLoad
from pondkeeper.writer.staged import StagedLoad

Send = Callable[[dict[str, Any]], None]


class Phase(Enum):
    """Where a member is: not begun (or rolled back), in the open transaction, or done with."""

    WAITING = "waiting"
    BEGUN = "begun"
    ANSWERED = "answered"


@dataclass
class Member:
    """One write of a batch: an atomic list of statements, a load of staged rows, or that of a job."""

    number: int
    statements: list[tuple[str, Any]]
    deadline: float
    timeout_s: float
    asked_ns: int
    key: str | None = None
    digest: str = ""
    load: StagedLoad | PlannedLoad | None = None
    phase: Phase = Phase.WAITING
    is_cancelled: bool = False
    is_looked_up: bool = False


class Batch:
    """The members in their order. Each is answered once, by the main thread or by the one that hears interrupts."""

    def __init__(self, writes: Iterable[dict[str, Any]], send: Send, *, may_forget: bool = True) -> None:
        now = time.monotonic()
        self._send = send
        self._lock = threading.Lock()
        self._members = {
            write["number"]: Member(
                write["number"],
                write["statements"],
                now + write["wait_s"],
                write["timeout_s"],
                write["asked_ns"],
                write.get("key"),
                write.get("digest", ""),
                _load(write["load"]) if "load" in write else None,
            )
            for write in writes
        }
        self._open = len(self._members)
        self.may_forget = may_forget
        self.transaction: Transaction | LoneInsert | None = None
        self.plan: deque[list[Member]] | None = None

    @property
    def members(self) -> list[Member]:
        return list(self._members.values())

    @property
    def numbers(self) -> list[int]:
        return list(self._members)

    @property
    def is_over(self) -> bool:
        """Whether every member has its answer."""
        return self._open == 0

    def time_left_s(self) -> float:
        """How long the most patient member that has no answer may still wait."""
        deadlines = [member.deadline for member in self.members if member.phase is not Phase.ANSWERED]
        return max(0.0, max(deadlines, default=0.0) - time.monotonic())

    def oldest_ns(self) -> int:
        """When the longest-waiting member that has no answer was asked for, on the clock of tickets."""
        asked = [member.asked_ns for member in self.members if member.phase is not Phase.ANSWERED]
        return min(asked, default=time.monotonic_ns())

    def announce(self, members: Iterable[Member]) -> None:
        """The turn of these members has come: their time to run begins."""
        now = time.monotonic()
        with self._lock:
            waiting = [member for member in members if member.phase is Phase.WAITING]
            for member in waiting:
                member.deadline = now + member.timeout_s
            self._send({"op": "begun", "numbers": [member.number for member in waiting]})

    def cancel(self, number: int) -> None:
        """Stop a member: at once when it waits; otherwise its transaction is interrupted. Called on the other thread."""
        with self._lock:
            member = self._members.get(number)
            if member is None or member.phase is Phase.ANSWERED:
                return
            member.is_cancelled = True
            if member.phase is Phase.WAITING:
                self._answer([_refusal(member, QueryCancelled())])
            elif self.transaction is not None:
                self.transaction.interrupt()

    def begin(self, members: Iterable[Member]) -> list[Member]:
        """Mark them as being in the open transaction; those that were answered meanwhile are left out."""
        with self._lock:
            begun = [member for member in members if member.phase is Phase.WAITING]
            for member in begun:
                member.phase = Phase.BEGUN
            return begun

    def put_back(self, members: Iterable[Member]) -> None:
        """Their transaction was rolled back: they wait again; one that was cancelled is answered instead."""
        with self._lock:
            cancelled = []
            for member in members:
                if member.phase is Phase.ANSWERED:
                    continue
                member.phase = Phase.WAITING
                if member.is_cancelled:
                    cancelled.append(_refusal(member, QueryCancelled()))
            self._answer(cancelled)

    def applied(self, rows_changed: dict[int, list[int]], version: int, held_s: float = 0.0) -> None:
        """These members are committed, and will be in `version`; their transaction was open for `held_s`."""
        held_ms = round(held_s * 1000, 3)
        answers = [
            {"number": number, "kind": "applied", "version": version, "rows_changed": rows, "held_ms": held_ms}
            | self._notes(number)
            for number, rows in rows_changed.items()
        ]
        with self._lock:
            self._answer(answers)

    def _notes(self, number: int) -> dict[str, Any]:
        load = self._members[number].load
        return {"notes": load.notes} if isinstance(load, PlannedLoad) else {}

    def refuse(self, members: Iterable[Member], error: PondkeeperError, kind: str = "refused") -> None:
        """These members ended with that error, if they have no answer yet; kind `unknown`: in mid-commit."""
        with self._lock:
            self._answer([_refusal(member, error, kind) for member in members if member.phase is not Phase.ANSWERED])

    def tell_end(self, error: PondkeeperError) -> None:
        """This process ends because of that error: whoever has no answer may hear why, should it come to that."""
        self._send({"op": "ending", "error": error.to_wire(with_private=True)})

    def _answer(self, answers: list[dict[str, Any]]) -> None:
        if not answers:
            return
        for answer in answers:
            self._members[answer["number"]].phase = Phase.ANSWERED
        self._open -= len(answers)
        self._send({"op": "answers", "answers": answers})


def _load(wire: dict[str, Any]) -> StagedLoad | PlannedLoad:
    return PlannedLoad.from_wire(wire) if "plan" in wire else StagedLoad.from_wire(wire)


def _refusal(member: Member, error: PondkeeperError, kind: str = "refused") -> dict[str, Any]:
    return {"number": member.number, "kind": kind, "error": error.to_wire(with_private=True)}


class Early:
    """Interrupts that overtook their write: the control socket is faster than a pipe with a long batch."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._newest = 0

    def note(self, number: int) -> None:
        """An interrupt has come. Called on the thread that hears interrupts."""
        if number > self._newest:
            self._numbers.add(number)

    def take(self, numbers: list[int]) -> list[int]:
        """Those of the writes that have just arrived which are cancelled already."""
        self._newest = max(numbers, default=self._newest)
        taken = [number for number in numbers if number in self._numbers]
        self._numbers.difference_update(numbers)
        return taken

"""The checker of histories: it accuses no right keeper, and finds every kind of fault in a forged history."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from campaigns.checker import check
from campaigns.forging import FORGERIES
from campaigns.operations import (
    APPEND,
    BROKEN,
    DELETE,
    INSERT,
    READ,
    REFUSED,
    TAIL,
    UNKNOWN,
    UPDATE,
    Final,
    History,
    Operation,
)

CLIENTS, KEYS = 5, 4
KINDS = (APPEND, APPEND, INSERT, UPDATE, UPDATE, DELETE, READ, READ, READ, TAIL)


class RightKeeper:
    """A keeper that is right by construction: one order of all writes, versions that are beginnings of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.log: list[tuple[int, int]] = []
        self.rows: dict[int, int] = {}
        self.snapshots: list[tuple[list[tuple[int, int]], dict[int, int]]] = [([], {})]
        self.seen = [0] * CLIENTS
        self.free_at = [0.0] * CLIENTS
        self.operations: list[Operation] = []
        self.is_late = False

    def history(self, count: int = 500) -> History:
        now = 0.0
        for n in range(1, count + 1):
            now += self.chance.random()
            if self.chance.random() < 0.2:
                self.snapshots.append((list(self.log), dict(self.rows)))
                self.is_late = False
            # A commit beside a checkpoint is answered with the version after it, and may be in that one already.
            self.is_late = self.is_late or self.chance.random() < 0.1
            client = self.chance.randrange(CLIENTS)
            # It happens now; it was sent before and is answered after, so that operations of several clients overlap.
            begin = max(self.free_at[client], now - self.chance.random() * 3)
            end = self.free_at[client] = now + self.chance.random() * 3
            if begin <= now:
                self.operations.append(self._one(client, n, begin, end, now))
            else:
                self.free_at[client] = begin
        return History(self.operations, Final(self.log, self.rows))

    def _one(self, client: int, n: int, begin: float, end: float, now: float) -> Operation:
        kind, key, value = self.chance.choice(KINDS), self.chance.randrange(KEYS), client * 1000 + n
        if kind in (READ, TAIL):
            return self._read(Operation(client, n, kind, begin, end, key=key if kind == READ else None))
        outcome = self.chance.choices(("committed", REFUSED, UNKNOWN), (90, 4, 6))[0]
        is_done = outcome == "committed" or (outcome == UNKNOWN and self.chance.random() < 0.5)
        version = len(self.snapshots) + self.is_late
        if kind == APPEND:
            self.log += [(client, n)] if is_done else []
            return self._answered(Operation(client, n, kind, begin, end), outcome, version)
        operation = Operation(client, n, kind, begin, end, key=key, value=None if kind == DELETE else value)
        is_there = key in self.rows
        if kind == INSERT and is_there and is_done:
            return self._answered(operation, BROKEN if outcome == "committed" else UNKNOWN, version)
        changed = int(kind == INSERT or is_there)
        if is_done and changed:
            self.rows = {k: v for k, v in self.rows.items() if k != key} | ({} if kind == DELETE else {key: value})
        return self._answered(operation, outcome, version, changed)

    @staticmethod
    def _answered(operation: Operation, outcome: str, version: int, changed: int | None = None) -> Operation:
        known = {"version": version, "changed": changed} if outcome == "committed" else {}
        return Operation(**{**vars(operation), "outcome": outcome, **known})

    def _read(self, operation: Operation) -> Operation:
        version = self.seen[operation.client] = max(self.seen[operation.client], len(self.snapshots) - 1)
        log, rows = self.snapshots[version]
        value = rows.get(operation.key) if operation.kind == READ else sum(row[0] == operation.client for row in log)  # type: ignore[arg-type]
        at_least = version if self.chance.random() < 0.5 else None
        return Operation(**{**vars(operation), "version": version, "at_least": at_least, "value": value})


@pytest.mark.parametrize("seed", range(60))
def test_a_right_keeper_is_not_accused(seed: int) -> None:
    """Overlapping clients, unknown and refused writes, stale reads: all of it is explained."""
    assert check(RightKeeper(seed).history()) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_every_forgery_is_found(name: str) -> None:
    """Each kind of fault, put into a right history, is reported; there must be histories to which it applies."""
    forged = [FORGERIES[name](RightKeeper(seed).history()) for seed in range(30)]
    applying = [history for history in forged if history is not None]
    assert len(applying) >= 5
    missed = sum(not check(history) for history in applying)
    # Why not 0: where writes overlap, some forgeries have another innocent explanation, such as an update that came later.
    assert missed <= len(applying) // 5, f"{missed} of {len(applying)} forgeries were not seen"


def write(client: int, n: int, kind: str, begin: float, end: float, version: int, value: int | None) -> Operation:
    return Operation(client, n, kind, begin, end, version=version, key=1, value=value, changed=1)


def read(client: int, n: int, begin: float, end: float, version: int, value: int | None) -> Operation:
    return Operation(client, n, READ, begin, end, version=version, key=1, value=value)


FIRST, SECOND = write(1, 1, INSERT, 0, 1, 1, 11), write(2, 1, UPDATE, 2, 3, 2, 21)


@pytest.mark.parametrize(
    ("operations", "final"),
    [
        pytest.param([FIRST, SECOND], 11, id="the later write is gone"),
        pytest.param([FIRST, SECOND, read(3, 1, 4, 5, 3, 11)], 21, id="an old value in a new version"),
        pytest.param([FIRST, SECOND, read(3, 1, 1.5, 1.6, 1, 21)], 21, id="read before it was sent"),
        pytest.param([FIRST, SECOND, read(3, 1, 4, 5, 3, 21), read(3, 2, 6, 7, 4, 11)], 21, id="a write came back"),
        pytest.param([FIRST, write(2, 1, DELETE, 2, 3, 2, None)], 11, id="deleted and there"),
        pytest.param([write(2, 1, UPDATE, 2, 3, 2, 21)], None, id="an update of a row that never was"),
        pytest.param([FIRST, write(2, 1, INSERT, 2, 3, 2, 21)], 21, id="two inserts of one key"),
    ],
)
def test_impossible_stories_of_one_row(operations: list[Operation], final: int | None) -> None:
    """Small stories that no order explains."""
    rows = {} if final is None else {1: final}
    assert check(History(operations, Final([], rows))) != []


@pytest.mark.parametrize(
    ("operations", "final"),
    [
        pytest.param([FIRST, SECOND], 21, id="one after the other"),
        pytest.param([FIRST, write(2, 1, UPDATE, 0.5, 3, 2, 21), read(3, 1, 4, 5, 2, 21)], 21, id="overlapping"),
        pytest.param([FIRST, SECOND, read(3, 1, 4, 5, 1, 11)], 21, id="an old version may be read"),
        pytest.param([FIRST, SECOND, read(3, 1, 4, 5, 1, 21)], 21, id="a version may have the next one's commits already"),
        pytest.param([FIRST, Operation(2, 1, UPDATE, 2, 3, UNKNOWN, key=1, value=21)], 21, id="unknown and done"),
        pytest.param([FIRST, Operation(2, 1, UPDATE, 2, 3, UNKNOWN, key=1, value=21)], 11, id="unknown and not done"),
    ],
)
def test_possible_stories_of_one_row(operations: list[Operation], final: int) -> None:
    """And those that an order does explain."""
    assert check(History(operations, Final([], {1: final}))) == []


def test_a_history_is_its_file(tmp_path: Path) -> None:
    """What is kept as evidence can be read and judged again."""
    history = RightKeeper(7).history()
    history.write(tmp_path / "history.jsonl")
    again = History.read(tmp_path / "history.jsonl")
    assert again.final == history.final
    assert sorted(again.operations, key=lambda each: (each.client, each.n)) == sorted(
        history.operations, key=lambda each: (each.client, each.n)
    )
    assert check(again) == []

"""The proof that every accepted or committed load is in the database once and whole, and in its order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from campaigns.ledger import ROWS_OF_LOAD
from campaigns.spooler import LoadsTold


class LoadBook:
    """What has been proved of the loads so far; each look reads what is new."""

    def __init__(self) -> None:
        self.place = 0
        self._seen: set[int] = set()
        self._last = {0: 0, 1: 0}

    def judge(self, row: Sequence[Any], committed_before: int, told: LoadsTold) -> list[str]:
        """What is wrong with the row of a look; `committed_before`: how many were committed when it began."""
        fresh = list(row[0] or ())
        numbers = [int(load["n"]) for load in fresh]
        wrong = [
            f"half a load, or one twice: load {load['n']} has {load['rows']} rows, {load['distinct']} different"
            for load in fresh
            if (load["rows"], load["distinct"]) != (ROWS_OF_LOAD, ROWS_OF_LOAD)
        ]
        wrong += [f"applied twice: load {n}" for n in numbers if n in self._seen]
        for kind in (0, 1):  # Why apart: what is accepted is applied later, beside what is committed at once.
            line = [self._last[kind], *(n for n in numbers if n % 2 == kind)]
            wrong += [f"out of order: load {later} behind {earlier}" for earlier, later in pairwise(line) if later < earlier]
            self._last[kind] = max(line)
        self._seen.update(numbers)
        self.place = int(row[1])
        wrong += [f"there and never sent: load {n}" for n in numbers if n > told.sent]
        wrong += [f"refused and there: load {n}" for n in sorted(told.refused & self._seen)]
        lost = set(told.committed[:committed_before]) - self._seen
        return wrong + [f"acknowledged and lost: load {n}" for n in sorted(lost)[:5]]

    def judge_the_end(self, told: LoadsTold) -> list[str]:
        """When the spool is empty: what was accepted and is not there."""
        return [f"accepted and lost: load {n}" for n in sorted(set(told.accepted) - self._seen)[:5]]

"""What the pool is asked, and within which limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pondkeeper.readers.reader import Resources
from pondkeeper.workers.ceiling import Ceiling


@dataclass(frozen=True)
class PoolLimits:
    """How many readers, what each may use, and how long a query waits for one."""

    count: int
    resources: Resources
    temp_limit_bytes: int
    wait_s: float
    max_waiting: int
    kill_after_s: float

    @property
    def ceiling(self) -> Ceiling:
        """The walls above DuckDB's own limit, which scalar functions ignore (FACTS: Killing)."""
        return Ceiling(self.resources.memory_limit_bytes)


@dataclass(frozen=True)
class Question:
    """A query as the pool needs it; `on_turn` is called when a reader begins with it. `caller`: whose turn it takes."""

    query_id: str
    message: Mapping[str, Any]
    deadline: float
    timeout_s: float
    on_turn: Callable[[], None]
    resources: Resources | None = None
    caller: str = ""

"""What was repaired, for whoever keeps the record of it: what happened before he came is kept for him."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Listener = Callable[[str, dict[str, Any]], None]


class Reports:
    """One listener at most; it is told the database and the report."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._waiting: list[tuple[str, dict[str, Any]]] = []

    def add(self, database: str, report: dict[str, Any]) -> None:
        """Something was repaired."""
        self._waiting.append((database, report))
        self._tell()

    def listen(self, listener: Listener) -> None:
        """From now on, and first of what has happened already."""
        self._listener = listener
        self._tell()

    def _tell(self) -> None:
        while self._listener is not None and self._waiting:
            self._listener(*self._waiting.pop(0))

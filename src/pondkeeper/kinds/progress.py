"""How fast a run gets on, and when it will be done: by what it did in the last seconds."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

WINDOW_S: Final = 20.0
BETWEEN_MARKS_S: Final = 0.5


class Pace:
    """Counts over time. Not safe in threads: its owner has a lock."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def note(self, done: int, now: float | None = None) -> None:
        """So much is done now; a smaller number than before begins anew."""
        at = time.monotonic() if now is None else now
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()
        if not self._marks or at - self._marks[-1][0] >= BETWEEN_MARKS_S:
            self._marks.append((at, done))
        while len(self._marks) > 2 and at - self._marks[0][0] > WINDOW_S:
            self._marks.popleft()

    def rate_per_s(self, done: int, now: float | None = None) -> float | None:
        """How much is done in a second; None while nobody can know."""
        if not self._marks:
            return None
        elapsed_s = (time.monotonic() if now is None else now) - self._marks[0][0]
        return (done - self._marks[0][1]) / elapsed_s if elapsed_s >= BETWEEN_MARKS_S else None

"""How many writes the writer is given at once: as many as take no longer than whoever comes meanwhile may wait."""

from __future__ import annotations

from typing import Final

LEAST: Final = 256  # Why not fewer: on a slow disk or a busy machine the time is not the writes'
MOST: Final = 2048
QUICK_S: Final = 0.05
SLOW_S: Final = 0.1


class BatchSize:
    """The most writes of the next batch: doubled after one that was full and quick, halved after a slow one."""

    def __init__(self) -> None:
        self.writes = LEAST
        self.count = 0
        self._began_at = 0.0

    def begin(self, count: int, now: float) -> None:
        """So many were handed over."""
        self.count, self._began_at = count, now

    def end(self, now: float) -> float:
        """All of them have their outcome; how long that took."""
        took_s = now - self._began_at
        if self.count == self.writes and took_s < QUICK_S:
            self.writes = min(2 * self.writes, MOST)
        elif took_s > SLOW_S:
            self.writes = max(self.writes // 2, LEAST)
        return took_s

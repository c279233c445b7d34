"""Durations in buckets, as cheap as a hot path needs it: for the metrics."""

from __future__ import annotations

from bisect import bisect_left

BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)


class Timings:
    """How often something took how long."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def record(self, duration_s: float) -> None:
        """It took that long once more."""
        self._counts[bisect_left(BUCKETS_S, duration_s)] += 1
        self.sum_s += duration_s

    def buckets(self) -> list[tuple[str, float]]:
        """How often it took no longer than each bound, as Prometheus counts it; the last one is every time."""
        found, total = [], 0
        for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found

"""A brake on crash loops: children that keep dying at birth are started ever more slowly."""

from __future__ import annotations

import time

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 10.0
EARLY_DEATH_S = 2.0


class Brake:
    """Doubles the delay with every early death in a row, and forgets when a child has lived."""

    def __init__(self) -> None:
        self.early_deaths = 0

    def record_death(self, started_at: float, *, was_useful: bool) -> None:
        """Note a death. A child that answered anything, or lived for a while, was no failure at birth."""
        lived_s = time.monotonic() - started_at
        self.early_deaths = 0 if was_useful or lived_s > EARLY_DEATH_S else self.early_deaths + 1

    def record_failure(self) -> None:
        """Note that a child could not even be made."""
        self.early_deaths += 1

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start; none after the first early death."""
        if self.early_deaths < 2:
            return 0.0
        delay: float = FIRST_DELAY_S * 2.0 ** (self.early_deaths - 2)
        return min(delay, LONGEST_DELAY_S)

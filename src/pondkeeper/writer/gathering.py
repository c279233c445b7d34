"""When to wait a moment for the rest of a crowd: a commit that many share costs each of them less.

Clients that wait for their answers come again all at once, just after a batch has ended. Handing over the first of them
alone would keep the others waiting for a whole commit; so the next batch waits for as many as there were around the last
one, for at most as long as that one took. Whoever writes alone never waits.
"""

from __future__ import annotations

from typing import Final

LEAST: Final = 4  # from so many on equal inserts become one statement (grouping.FUSED_AT_LEAST)
MOST_S: Final = 0.002


class Gathering:
    """How many writes the next batch waits for, and until when (on the event loop's clock)."""

    def __init__(self) -> None:
        self.enough = 1
        self.until = 0.0

    def learn(self, count: int, waiting: int, *, most: int, took_s: float, now: float) -> None:
        """A batch of `count` writes has ended after `took_s`, and `waiting` have come meanwhile; `most` fit into one."""
        crowd = min(count + waiting, most)
        self.enough = crowd if crowd >= LEAST else 1
        self.until = now + min(took_s, MOST_S)

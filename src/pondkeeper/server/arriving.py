"""Bodies that are held in memory while they arrive: all of them together may take so much, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pondkeeper.errors import QueueFull

MOST_BYTES: Final = 512 * 1024 * 1024
RETRY_AFTER_S: Final = 1


class Arriving:
    """How much of bodies has arrived that are not whole yet. Ingests go to the disk, and do not count."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self.size_bytes = 0

    @contextmanager
    def share(self, max_body_bytes: int) -> Iterator[Share]:
        """The share of one body that may have so many bytes, given back at the end of the block. Two such always have room."""
        share = Share(self, max(self._most_bytes, 2 * max_body_bytes))
        try:
            yield share
        finally:
            self.size_bytes -= share.size_bytes

    def take(self, more_bytes: int, most_bytes: int) -> None:
        """Raises QueueFull when that is more than there is room for."""
        if self.size_bytes + more_bytes > most_bytes:
            raise QueueFull(
                "The bodies of requests that arrive right now are all that the keeper holds in memory.",
                retry_after_s=RETRY_AFTER_S,
                limit="arriving_bytes",
            )
        self.size_bytes += more_bytes


class Share:
    """What one body has taken."""

    def __init__(self, arriving: Arriving, most_bytes: int) -> None:
        self.size_bytes = 0
        self._arriving, self._most_bytes = arriving, most_bytes

    def grow(self, more_bytes: int) -> None:
        """Take more. Raises QueueFull."""
        self._arriving.take(more_bytes, self._most_bytes)
        self.size_bytes += more_bytes


ARRIVING: Final = Arriving()
"""Of this process: there is one keeper in it."""

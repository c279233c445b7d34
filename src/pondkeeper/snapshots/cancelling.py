"""Stopping a copy on demand: asked between blocks, set from another thread."""

from __future__ import annotations

import threading

from pondkeeper.errors import QueryCancelled


class Cancelling:
    """`request()` makes the running copy end with QueryCancelled at its next block."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def request(self) -> None:
        self._requested.set()

    def clear(self) -> None:
        """Forget a request that came when nothing ran, or has been obeyed."""
        self._requested.clear()

    def check(self) -> None:
        if self._requested.is_set():
            raise QueryCancelled("The snapshot was cancelled; the older ones are untouched.")

"""Keys for writes that were given none: the same for every try of one write, and never the same for two."""

from __future__ import annotations

import itertools
import os
import secrets


class WriteKeys:
    """Makes keys. They begin alike and count up, which the index over them likes better than random ones."""

    def __init__(self) -> None:
        self._renew()

    def new(self) -> str:
        """A key that nobody else makes."""
        if os.getpid() != self._pid:  # Trap: after a fork two processes would count on from the same number.
            self._renew()
        return f"{self._prefix}{next(self._numbers):08x}"

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._prefix = f"auto-{secrets.token_hex(10)}-"
        self._numbers = itertools.count()

"""Keys for writes that were given none: the same for every try of one write, and never the same for two."""

from __future__ import annotations

import itertools
import os
import secrets
import time


class WriteKeys:
    """Makes keys. They sort by the second in which they were made, which the index over them likes better than random ones,
    and which tells that a new one is not among those of yesterday."""

    def __init__(self) -> None:
        self._renew()

    def new(self) -> str:
        """A key that nobody else makes."""
        if os.getpid() != self._pid:  # Trap: after a fork two processes would count on from the same number.
            self._renew()
        return f"auto-{int(time.time()):09x}-{self._maker}-{next(self._numbers):08x}"

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._maker = secrets.token_hex(8)
        self._numbers = itertools.count()

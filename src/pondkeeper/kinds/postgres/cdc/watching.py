"""Watching over the slot: how much of its log the source keeps for it, and giving it up before that fills its disk."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pondkeeper.errors import SourceRefused
from pondkeeper.kinds.postgres.cdc.catalog import find_slot
from pondkeeper.kinds.postgres.connecting import Connection

if TYPE_CHECKING:
    from pondkeeper.kinds.context import RunContext

LOOK_EVERY_S: Final = 5.0
GIVE_UP_AFTER_S: Final = 60.0


@dataclass
class SlotWatch:
    """Looks at the slot now and then. Raises SourceRefused, and has given up, once too much is kept and that does not shrink."""

    context: RunContext
    connection: Connection
    slot: str
    most_bytes: int
    kept_bytes: int = 0
    gave_up: bool = False
    _looked_at: float = field(default=0.0, init=False)
    _over_since: float | None = field(default=None, init=False)
    _over_bytes: int = field(default=0, init=False)

    def look(self) -> None:
        """Look, if it is time."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        found = find_slot(self.connection, self.slot)
        if found is None:
            return  # Why no word: the stream, which needs it, has more to say
        self.kept_bytes = found.kept_bytes
        if not self.most_bytes or found.kept_bytes <= self.most_bytes:
            self._over_since = None
        elif self._over_since is None or found.kept_bytes < self._over_bytes:
            self._over_since, self._over_bytes = now, found.kept_bytes
        elif now - self._over_since >= GIVE_UP_AFTER_S:
            self.gave_up = True
            raise SourceRefused(
                f"The source keeps {found.kept_bytes:,} bytes of its log for the slot {self.slot!r}, more than "
                f"{self.most_bytes:,}, and for {now - self._over_since:.0f} s that was not getting less: the slot was given up.",
                remedy="The next run copies the tables again. See why changes were not loaded in time, or raise `max_slot_lag_bytes`.",
            )

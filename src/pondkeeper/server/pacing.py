"""Refusals at a pace: who is told to come back later, and asks again at once, is answered a little later each time.

Why: a refusal costs the keeper half of what a small query does. Two thousand clients that repeat theirs without a pause
would have the event loop to themselves; held, each of them has one refusal on its way, and the others hardly notice.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from pondkeeper.errors import LimitReached
from pondkeeper.server.scopes import CALLER, PATIENCE, exchange_of

if TYPE_CHECKING:
    from starlette.types import Scope

    from pondkeeper.errors import PondkeeperError

REFUSALS_PER_S: Final = 200.0
MOST_HELD_S: Final = 4.0
MAX_KNOWN: Final = 10_000


class Pace:
    """When the next refusal of each caller is due. Who comes too often is held, nobody for longer than `MOST_HELD_S`,
    nor past the deadline of his own request."""

    def __init__(self) -> None:
        self._due_at: OrderedDict[str, float] = OrderedDict()

    async def hold(self, error: PondkeeperError, scope: Scope) -> None:
        """Wait until this refusal is due: at once, unless its caller has had very many."""
        if not isinstance(error, LimitReached) or "retry_after_s" not in error.details:
            return
        held_s = min(self.held_s(_caller(scope), time.monotonic()), scope.get(PATIENCE, MOST_HELD_S))
        if held_s > 0:
            if (exchange := exchange_of(scope)) is not None:
                exchange.cancel_when_gone = True
            await asyncio.sleep(held_s)

    def held_s(self, caller: str, now: float) -> float:
        """How long one more refusal of this caller is held."""
        due_at = max(now, self._due_at.get(caller, 0.0))
        self._due_at[caller] = min(due_at + 1 / REFUSALS_PER_S, now + MOST_HELD_S)
        self._due_at.move_to_end(caller)
        if len(self._due_at) > MAX_KNOWN:
            self._due_at.popitem(last=False)
        return due_at - now


def _caller(scope: Scope) -> str:
    """The key where there is one, else the address."""
    key = scope.get(CALLER)
    if key is not None:
        return str(key.id)
    client = scope.get("client")
    return str(client[0]) if client else ""

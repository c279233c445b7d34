"""Work that goes on to its end whatever becomes of the request that asked for it: writes and ingests."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pondkeeper.errors import OutcomeUnknown
from pondkeeper.server.exchange import ClientGone

if TYPE_CHECKING:
    from pondkeeper.server.exchange import Exchange

Outcome = TypeVar("Outcome")


class Finishing(Generic[Outcome]):
    """What is under way. `what` names it in an error: "write" or "ingest"."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tasks: set[asyncio.Task[Outcome]] = set()

    async def wait_for(self, work: Coroutine[Any, Any, Outcome], exchange: Exchange | None) -> Outcome:
        """The outcome of the work. Raises what it raises, ClientGone, and OutcomeUnknown when the keeper stops before.

        Shielded: what is under way is not undone because its request is cancelled.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if exchange is not None:
            exchange.cancel_when_gone = True
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if exchange is not None and exchange.disconnected:
                task.cancel()  # Why: what still waits is dropped; what has begun goes on to its end.
                raise ClientGone from None
            # Why not KeeperStopping: that invites to try again, and it may yet be committed.
            raise OutcomeUnknown(f"The keeper stopped before it knew what became of the {self._what}.") from None
        finally:
            if exchange is not None:
                exchange.cancel_when_gone = False

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Why: else asyncio complains when nobody is left to be told

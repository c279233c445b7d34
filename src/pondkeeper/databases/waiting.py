"""Who waits for a version that is not published yet, and what he would rather be told than wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from pondkeeper.errors import DatabaseBusy, DatabaseUnavailable, PondkeeperError

GivesUpOn = Callable[[PondkeeperError], bool]


@dataclass(frozen=True)
class Waiter:
    """Somebody who waits for a version, and the errors that end his waiting."""

    version: int
    reached: asyncio.Future[None]
    gives_up_on: GivesUpOn


class Waiters:
    """Those who wait for a version of one database."""

    def __init__(self) -> None:
        self._waiting: list[Waiter] = []

    async def wait(self, version: int, deadline: float, gives_up_on: GivesUpOn) -> None:
        """Return when `version` is published. Raises TimeoutError, or the error that is given up on."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(version, loop.create_future(), gives_up_on)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(deadline - loop.time()):
                await waiter.reached
        finally:
            self._waiting.remove(waiter)

    def published(self, version: int) -> None:
        """Wake those whose version is reached."""
        for waiter in self._waiting:
            if waiter.version <= version and not waiter.reached.done():
                waiter.reached.set_result(None)

    def failed(self, error: PondkeeperError) -> None:
        """Tell those who give up on this error."""
        for waiter in self._waiting:
            if waiter.gives_up_on(error) and not waiter.reached.done():
                waiter.reached.set_exception(error.again())


def is_lasting(error: PondkeeperError | None) -> TypeGuard[PondkeeperError]:
    """Whether it is a fault of the file or the disk: waiting a little is of no use. A holder of the file may let go."""
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, DatabaseBusy)


def is_any(_: PondkeeperError) -> bool:
    """Give up on every error."""
    return True


def is_never(_: PondkeeperError) -> bool:
    """Give up on no error: the next attempt may succeed before the deadline."""
    return False

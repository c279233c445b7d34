"""The last resort of a stop: a keeper whose stop gets stuck ends all the same, and says what it waited for."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from typing import Any, Final

import msgspec

AFTER_S: Final = 15.0  # beyond the grace: what closes files, archives and children has bounds of its own, below that
EXIT_CODE: Final = 1


class LastResort:
    """Armed when the stop begins, until the process has ended.

    Why it may end the process as a kill would: nothing is acknowledged that is not on the disk, and the children end when
    their pipes close. Why a thread: it may be the event loop that is stuck.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: threading.Timer | None = None

    def arm(self, stop_s: float) -> None:
        """End the process when a stop that may take so long has taken AFTER_S more; told again, nothing changes."""
        if self._timer is None:
            after_s = stop_s + AFTER_S
            self._timer = threading.Timer(after_s, self._end, [after_s])
            self._timer.daemon = True
            self._timer.start()

    def _end(self, after_s: float) -> None:
        try:
            self._say(after_s)
        finally:
            os._exit(EXIT_CODE)

    def _say(self, after_s: float) -> None:
        """What is waited for, if it can be said at once. Why not through the log: its thread may be what is stuck."""
        waits_for = sorted(_where(task) for task in asyncio.all_tasks(self._loop))
        event = f"the stop did not end within {after_s:g} s; the keeper ends as if it was killed"
        line = msgspec.json.encode({"event": event, "level": "critical", "waits_for": waits_for}) + b"\n"
        descriptor = sys.stderr.fileno()
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, line[: select.PIPE_BUF])  # Why no more: of a pipe nobody reads, so much may still be free


def _where(task: asyncio.Task[Any]) -> str:
    """The coroutines that the task is in, from the outermost to the one that waits."""
    names: list[str] = []
    coroutine: Any = task.get_coro()
    while (name := getattr(coroutine, "__qualname__", None)) is not None:
        names.append(str(name))
        coroutine = getattr(coroutine, "cr_await", None)
    return " > ".join(names)

"""One reader as the keeper sees it: its process, its state, the snapshot that it has open."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pondkeeper.workers import precedence, slices
from pondkeeper.workers.child import Child
from pondkeeper.workers.side_tasks import SideTasks


class ReaderState(enum.StrEnum):
    """The states of a reader, by these names in metrics, API and console."""

    STARTING = "starting"
    IDLE = "idle"
    OPENING = "opening"
    BUSY = "busy"
    DEAD = "dead"


@dataclass(frozen=True)
class Snapshot:
    """What a reader is to open: one version of one database."""

    database: str
    version: int
    path: str


@dataclass(frozen=True)
class Resources:
    """What a reader may use while it runs a query."""

    memory_limit_bytes: int
    threads: int


class Reader:
    """A reader process; `release` gives it back to its pool, exactly once per use.

    `database`: whose fence it was born behind, or, where nothing fences files in, which it has open. `caller`: whose
    query it runs; `last_caller`: whose it ran last. `is_replaced`: it ends because another is born in its place. `heir`: who waits for it while it is born. `snapshot`: what it has open, or has let go of. `was_useful`: it has answered something, or we ended it; else its death
    counts as one at birth. `is_spent`: it ran out of memory, and what its allocator still holds would be missing to the
    next query.
    """

    def __init__(
        self, child: Child, side_tasks: SideTasks, on_release: Callable[[Reader], None], database: str
    ) -> None:
        self.child = child
        self.database = database
        self.side_tasks = side_tasks
        self.state = ReaderState.STARTING
        self.caller: str | None = None
        self.last_caller: str | None = None
        self.snapshot: Snapshot | None = None
        self.has_it_open = False
        self.resources: Resources | None = None
        self.started_at = time.monotonic()
        self.was_useful = False
        self.is_spent = False
        self.is_replaced = False
        self.heir: asyncio.Future[Reader] | None = None
        self.failed_to_open: Snapshot | None = None
        self._on_release = on_release
        self._number = 0
        self.gives_way = False
        self.cannot_go_first = False

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def open_message(self, snapshot: Snapshot, resources: Resources) -> dict[str, Any]:
        """The part of a message that names what is to be open, which the reader then has."""
        self.snapshot, self.resources, self.has_it_open = snapshot, resources, True
        self.database = snapshot.database
        return {
            "path": snapshot.path,
            "version": snapshot.version,
            "memory_limit_bytes": resources.memory_limit_bytes,
            "threads": resources.threads,
        }

    def let_go(self) -> None:
        """Close the snapshot: nobody will ask for it again, and a file that is open nowhere can become the next version."""
        if self.has_it_open and not self.child.exited.done():
            self.has_it_open = False
            self.child.send({"op": "let_go"})

    def let_others_go_first(self) -> None:
        """A long query runs, or one of many: whoever wants a processor gets it before this reader, and more of it."""
        if not self.gives_way and not self.child.exited.done():
            self.gives_way = True
            slices.ask_for(self.child.pid, slices.LONG_S)
            precedence.give_way(self.child.pid)

    def take_turns_again(self) -> None:
        """That is over. Where the kernel does not let us take it back, the reader is to be replaced while it is idle."""
        if self.gives_way and not self.child.exited.done():
            self.cannot_go_first = not precedence.go_first(self.child.pid)
            if not self.cannot_go_first:
                self.gives_way = False
                slices.ask_for(self.child.pid, slices.SHORT_S)

    def is_replaced_now(self) -> None:
        """End it, since another is born in its place: no death at birth, and nobody's failure."""
        self.is_replaced = self.was_useful = True
        self.state = ReaderState.DEAD
        self.child.kill()

    def release(self) -> None:
        self._on_release(self)

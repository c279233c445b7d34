"""What runs right now: every query and write by its id, so that it can be seen and killed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pondkeeper.databases.events import EventHub
from pondkeeper.databases.reports import Reports
from pondkeeper.errors import (
    OutOfMemory,
    PondkeeperError,
    QueryCancelled,
    QueryNotFound,
    QueryTimedOut,
    WorkerDied,
    WriteTimedOut,
)

Stop = Callable[[PondkeeperError], None]
_KILLS = (QueryTimedOut, WriteTimedOut, QueryCancelled, OutOfMemory, WorkerDied)


def killer_of(error: BaseException) -> str | None:
    """The code of what ended a query before it was done; None when it ended by itself."""
    if isinstance(error, asyncio.CancelledError):
        return "client_gone"
    return error.code if isinstance(error, _KILLS) else None


@dataclass
class Running:
    """One query or write on its way."""

    query_id: str
    kind: str
    database: str
    sql: str
    key_id: str | None
    client: str | None
    stop: Stop
    state: str = "waiting"
    started_at: float = field(default_factory=time.time)

    def has_its_turn(self) -> None:
        """It does not wait any more."""
        self.state = "running"

    def describe(self) -> dict[str, Any]:
        """The entry as GET /v1/queries shows it."""
        return {
            "id": self.query_id,
            "kind": self.kind,
            "database": self.database,
            "sql": self.sql,
            "key_id": self.key_id,
            "client": self.client,
            "state": self.state,
            "elapsed_ms": round((time.time() - self.started_at) * 1000, 1),
        }


class RunningQueries:
    """The table of running queries and writes of the keeper."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self.events = EventHub()
        self.repairs = Reports()

    def new_id(self) -> str:
        return "q_" + secrets.token_hex(8)

    def add(self, running: Running) -> None:
        self._running[running.query_id] = running
        if self.events.is_heard:
            self._tell("query_started", running, sql=running.sql)

    def remove(self, query_id: str, killed_by: str | None = None) -> None:
        """It has ended; `killed_by` is the code of what ended it before it was done."""
        running = self._running.pop(query_id, None)
        if running is not None and self.events.is_heard:
            elapsed_ms = round((time.time() - running.started_at) * 1000, 1)
            if killed_by is None:
                self._tell("query_ended", running, elapsed_ms=elapsed_ms)
            else:
                self._tell("query_killed", running, elapsed_ms=elapsed_ms, reason=killed_by)

    def told_repaired(self, database: str, report: dict[str, Any]) -> None:
        """A torn file was made whole."""
        self.repairs.add(database, report)
        shown = ("blocks", "headers", "wal_bytes_cut", "donor", "kept_as")
        self.events.emit("repaired", database, **{name: report[name] for name in shown})

    def _tell(self, kind: str, running: Running, **data: Any) -> None:
        about = {"id": running.query_id, "of": running.kind, "key": running.key_id, "client": running.client}
        self.events.emit(kind, running.database, running.key_id, **about, **data)

    def list(self) -> list[dict[str, Any]]:
        """Every running query and write, oldest first."""
        return [running.describe() for running in self._running.values()]

    def find(self, query_id: str) -> Running:
        """The entry of that id. Raises QueryNotFound."""
        try:
            return self._running[query_id]
        except KeyError:
            raise QueryNotFound(f"No query {query_id!r} is running.") from None

    def cancel(self, query_id: str, by: str) -> None:
        """Kill a query, or drop a write that has not begun to commit. Raises QueryNotFound."""
        self.find(query_id).stop(QueryCancelled(f"The query was cancelled by {by}."))


def interrupt(task: asyncio.Task[Any], reason: PondkeeperError, stopped: list[PondkeeperError]) -> None:
    """Stop what still waits: its task is cancelled, and says `reason` instead of CancelledError."""
    if not stopped:
        stopped.append(reason)
        task.cancel()

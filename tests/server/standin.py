"""A registry whose databases answer by what the statement says: the server's tests need no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pondkeeper.databases.requests import ReadRequest, SnapshotInfo, WriteOutcome, WriteRequest
from pondkeeper.databases.running import Running, RunningQueries
from pondkeeper.errors import DatabaseNotFound, PondkeeperError
from pondkeeper.files.paths import DatabasePaths

MIB = 1024 * 1024
CONTENT_TYPES = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}
ONE = (
    b'{"columns":[{"name":"1","type":"INTEGER"}],"rows":[[1]],'
    b'"row_count":1,"truncated":false,"limit":null,"version":7,"elapsed_ms":0.2}'
)


@dataclass(frozen=True)
class Ending:
    row_count: int
    truncated: bool = False
    limit: str | None = None


@dataclass
class Stream:
    """Answers `pieces`, then raises `breaks_with`, or ends with `last`."""

    content_type: str
    pieces: list[bytes] = field(default_factory=list)
    small: bytes | None = None
    ending: Ending | None = None
    last: Ending = Ending(1)
    breaks_with: PondkeeperError | None = None
    query_id: str = "q_1"
    lag_s: float | None = None
    version: int = 7
    sent: int = 0
    is_cancelled: bool = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.small is not None:
            yield self.small
            return
        for piece in self.pieces:
            await asyncio.sleep(0)
            self.sent += 1
            yield piece
        if self.breaks_with is not None:
            raise self.breaks_with
        self.ending = self.last

    async def cancel(self) -> None:
        self.is_cancelled = True


class Database:
    """`query` takes a statement of words: `one`, `wait S`, `stream COUNT SIZE`, `break`, `cut`, `fail CODE`, `crash`."""

    def __init__(self, name: str, folder: Path, running: RunningQueries) -> None:
        self.name = name
        self.paths = DatabasePaths(folder / f"{name}.duckdb", folder)
        self.refuses_writes: PondkeeperError | None = None
        self.running = running
        self.state = "ready"
        self.streams: list[Stream] = []
        self.requests: list[ReadRequest] = []
        self.writes: list[WriteRequest] = []
        self.written: list[WriteRequest] = []
        self.waiting = 0
        self.cancelled = 0

    async def query(self, request: ReadRequest) -> Stream:
        self.requests.append(request)
        what, *words = request.sql.split()
        type_ = CONTENT_TYPES.get(request.format, "application/octet-stream")
        if what == "fail":
            raise PondkeeperError.from_wire({"code": words[0], "message": "It failed.", "private": "/secret/place"})
        if what == "crash":
            raise ZeroDivisionError
        if what == "wait":
            await self._wait(request, float(words[0]))
        stream = _stream(what, words, type_, request)
        self.streams.append(stream)
        return stream

    async def _wait(self, request: ReadRequest, seconds: float) -> None:
        task = asyncio.current_task()
        entry = Running(
            "q_wait", "query", self.name, request.sql, request.key_id, request.client, lambda _: task.cancel()
        )
        self.running.add(entry)
        self.waiting += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
            self.running.remove("q_wait")

    async def execute(self, request: WriteRequest) -> WriteOutcome:
        """As the real one: a write that has begun goes on when nobody waits for it any more."""
        self.writes.append(request)
        return await asyncio.shield(asyncio.ensure_future(self._carry_out(request)))

    async def _carry_out(self, request: WriteRequest) -> WriteOutcome:
        what, *words = request.statements[0][0].split()
        if what == "fail":
            raise PondkeeperError.from_wire({"code": words[0]})
        if what == "wait":
            await asyncio.sleep(float(words[0]))
        self.written.append(request)
        return WriteOutcome(8, [1] * len(request.statements))

    async def take_snapshot(self, timeout_s: float, *, only_changes: bool = False) -> SnapshotInfo:
        return SnapshotInfo(9, "/secret/place", "2026-11-20T00:00:00+00:00", 4096)

    def timings(self) -> dict[str, dict[str, Any]]:
        return {"waits": {}, "holds": {}}

    def status(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "version": 7,
            "snapshot": {"version": 7, "age_s": 0.5, "size_bytes": 4096, "bytes_copied": 10, "elapsed_ms": 3.0},
            "file": {"size_bytes": 4096, "wal_bytes": 0},
            "lease": {"holder": None, "waiting": 0},
            "foreign": [],
            "writer": {"is_open": False, "pid": None, "waiting_for": None},
            "queue": {"depth": 2, "by_priority": {"interactive": 2}},
            "problem": None,
        }


def _stream(what: str, words: list[str], type_: str, request: ReadRequest) -> Stream:
    if what == "stream":
        return Stream(type_, pieces=[b"x" * int(words[1])] * int(words[0]))
    if what == "break":
        return Stream(type_, pieces=[b"x" * 100], breaks_with=PondkeeperError.from_wire({"code": "worker_died"}))
    if what == "breakfirst":
        return Stream(type_, breaks_with=PondkeeperError.from_wire({"code": "statement_failed"}))
    if what == "cut":
        return Stream(type_, pieces=[b"x" * 100], last=Ending(1, truncated=True, limit="max_rows"))
    truncated = what == "smallcut"
    return Stream(type_, small=ONE, ending=Ending(1, truncated=truncated, limit="max_rows" if truncated else None))


class Pool:
    waiting = 0
    kills = 0

    def states(self) -> dict[str, int]:
        return {"idle": 4, "busy": 0}


class Registry:
    def __init__(self, folder: Path, *names: str) -> None:
        self.running = RunningQueries()
        self.pool = Pool()
        self.databases = {name: Database(name, folder, self.running) for name in names}

    def get(self, name: str | None) -> Database:
        if name is None and len(self.databases) == 1:
            return next(iter(self.databases.values()))
        if name not in self.databases:
            raise DatabaseNotFound
        return self.databases[name]

    def all(self) -> list[Database]:
        return list(self.databases.values())

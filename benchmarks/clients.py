"""Client processes: each opens its own connection, makes calls for a while and reports each call's latency.

A client is described by a small picklable object with `open()`, which returns the call to repeat. They run in processes
because clients of a server are other programs: a thread would share the measuring process's interpreter lock.
"""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol

_CONTEXT = mp.get_context("spawn")
READY_TIMEOUT_S = 60.0
ONCE = "once"


class ClientKind(Protocol):
    """Picklable description of a client."""

    def open(self) -> Callable[[], object]: ...


@dataclass(frozen=True)
class LeanQuery:
    """A JSON query through the lean client."""

    url: str
    key: str
    sql: str
    fields: dict[str, Any] = field(default_factory=dict)

    def open(self) -> Callable[[], object]:
        from benchmarks.lean import LeanClient

        client = LeanClient(self.url, self.key)
        return lambda: client.query(self.sql, **self.fields)["rows"]


@dataclass(frozen=True)
class LeanGet:
    """A GET of one path through the lean client."""

    url: str
    key: str
    path: str

    def open(self) -> Callable[[], object]:
        from benchmarks.lean import LeanClient

        client = LeanClient(self.url, self.key)
        return lambda: client.get(self.path)


@dataclass(frozen=True)
class LibraryQuery:
    """A query through `pondkeeper.client`."""

    url: str
    key: str
    sql: str

    def open(self) -> Callable[[], object]:
        from pondkeeper.client import Client

        client = Client(self.url, self.key)
        return lambda: client.query(self.sql).rows


@dataclass(frozen=True)
class QuackQuery:
    """A query that a Quack server executes; the statement is sent as text, its fastest way for small queries."""

    port: int
    sql: str

    def open(self) -> Callable[[], object]:
        from benchmarks.quack import connect

        connection = connect(self.port)
        statement = f"FROM quack_query_by_name('remote', '{self.sql}')"
        return lambda: connection.execute(statement).fetchall()


@dataclass(frozen=True)
class Sample:
    """What one client saw: latencies in seconds, and the errors by message."""

    latencies_s: list[float]
    errors: list[str]


def _client(kind: ClientKind, orders: Connection) -> None:
    call = kind.open()
    orders.send("ready")
    while (order := orders.recv()) is not None:
        orders.send(call() if order == ONCE else _repeat(call, *order))


def _repeat(call: Callable[[], object], seconds: float, pause_s: float) -> Sample:
    latencies: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        try:
            call()
            latencies.append(time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001  whatever a peer's library raises is one failed call
            errors.append(f"{type(error).__name__}: {error}")
        if pause_s:
            time.sleep(pause_s)
    return Sample(latencies, errors)


class Clients:
    """Client processes of the given kinds, which all work at the same time."""

    def __init__(self, kinds: Sequence[ClientKind]) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for kind in kinds:
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_client, args=(kind, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Clients:
        for pipe in self._pipes:
            if not pipe.poll(READY_TIMEOUT_S) or pipe.recv() != "ready":
                raise RuntimeError("a client process did not become ready; its error is above")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def begin(self, seconds: float, pause_s: float = 0.0) -> None:
        for pipe in self._pipes:
            pipe.send((seconds, pause_s))

    def collect(self) -> list[Any]:
        """What the clients report of the run that `begin` started; waits for its end."""
        return [pipe.recv() for pipe in self._pipes]

    def once(self) -> list[Any]:
        """One call by each client; what the calls returned."""
        for pipe in self._pipes:
            pipe.send(ONCE)
        return self.collect()

    def run(self, seconds: float, pause_s: float = 0.0) -> list[Sample]:
        """Calls one after the other for that long."""
        self.begin(seconds, pause_s)
        return self.collect()


def latencies_ms(samples: Sequence[Sample]) -> list[float]:
    return [1000 * latency for sample in samples for latency in sample.latencies_s]

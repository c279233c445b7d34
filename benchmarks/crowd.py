"""Crowds of writing clients in one process: many kept-alive connections, each with one request on its way.

Sixty-four processes would measure the scheduler. Ours are plain sockets behind one selector, which costs the machine less
than any HTTP library; Quack's are threads with a connection each, which run in the engine without Python's lock.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pondkeeper.client.keys import WriteKeys

RECEIVE_BYTES = 65536
_QUACK_CONNECTIONS: list[Any] = []


@dataclass(frozen=True)
class Tally:
    """What a crowd has done: writes that were answered well, the others, and the first error."""

    done: int
    failed: int
    error: str = ""
    rate: float = 0.0  # done per second


@dataclass(frozen=True)
class HttpCrowd:
    """So many connections to a keeper, each repeating one write."""

    url: str
    key: str
    count: int
    sql: str
    parameters: list[object]
    with_keys: bool = False

    def run(self, seconds: float) -> Tally:
        parts = urlsplit(self.url)
        body = json.dumps({"sql": self.sql, "parameters": self.parameters}).encode()
        head = f"POST /v1/execute HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        keys = WriteKeys()

        def message() -> bytes:
            key = f"Idempotency-Key: {keys.new()}\r\n" if self.with_keys else ""
            return f"{head}{key}\r\n".encode() + body

        with selectors.DefaultSelector() as ready:
            for _ in range(self.count):
                connection = socket.create_connection((parts.hostname or "", parts.port or 80))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(connection, selectors.EVENT_READ)
                connection.sendall(message())
            return drive(ready, message, seconds, status=200)


def drive(ready: selectors.BaseSelector, message: Callable[[], bytes], seconds: float, *, status: int) -> Tally:
    """Take answers, of which those of that status are good, and send the next request. Answers to writes are small and come in one piece."""
    good = f"HTTP/1.1 {status} ".encode()
    done = failed = 0
    error = ""
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        for key, _ in ready.select(end - now):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            answer = connection.recv(RECEIVE_BYTES)
            if answer.startswith(good):
                done += 1
            else:
                failed, error = failed + 1, error or answer[-200:].decode(errors="replace")
            if not answer:
                raise RuntimeError("the keeper closed a connection")
            connection.sendall(message())
    return Tally(done, failed, error, done / seconds)


@dataclass(frozen=True)
class PipelineCrowd:
    """One pipeline to the keeper of that home, as full as it takes."""

    home: Path
    sql: str
    parameters: list[object]
    retries: int | None = None

    def run(self, seconds: float) -> Tally:
        from pondkeeper import Pipeline

        failed: list[str] = []
        done = 0

        def note(future: Future[Any]) -> None:
            nonlocal done
            done += 1
            if error := future.exception():
                failed.append(str(error))

        began = time.perf_counter()
        with Pipeline(self.home, retries=self.retries) as pipeline:
            while time.perf_counter() - began < seconds:
                for _ in range(64):
                    pipeline.execute(self.sql, self.parameters).add_done_callback(note)
        elapsed_s = time.perf_counter() - began
        return Tally(done - len(failed), len(failed), failed[0] if failed else "", done / elapsed_s)


@dataclass(frozen=True)
class QuackCrowd:
    """So many connections to a Quack server, each repeating one write in its fastest way."""

    port: int
    count: int
    sql: str

    def run(self, seconds: float) -> Tally:
        from benchmarks.quack import connect

        statement = f"FROM quack_query_by_name('remote', '{self.sql}')"
        while len(_QUACK_CONNECTIONS) < self.count:  # kept for the next turn: one takes a tenth of a second
            _QUACK_CONNECTIONS.append(connect(self.port))
        connections = _QUACK_CONNECTIONS[: self.count]
        return in_threads([lambda each=each: each.execute(statement).fetchall() for each in connections], seconds)  # type: ignore[misc]  # mypy infers no lambda with a default


def in_threads(calls: list[Callable[[], object]], seconds: float) -> Tally:
    """Repeat each call on a thread of its own for that long."""
    done, errors = [0] * len(calls), [list[str]() for _ in calls]
    end = time.perf_counter() + seconds

    def repeat(number: int) -> None:
        while time.perf_counter() < end:
            try:
                calls[number]()
                done[number] += 1
            except Exception as error:  # noqa: BLE001  whatever a peer's library raises is one failed write
                errors[number].append(str(error))

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [error for each in errors for error in each]
    return Tally(sum(done), len(found), found[0] if found else "", sum(done) / seconds)

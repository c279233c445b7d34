"""Queries in the background, and what came of each."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from pondkeeper.client.client import Client
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess, wait_until

Answered = Any | PondkeeperError


class Asked:
    """One query (or any call) on a thread of its own; `outcome()` waits for what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._outcome: Answered = None
        self.began = time.monotonic()
        self.took_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._call()
        except Exception as error:  # whatever came of it is for the test to judge
            self._outcome = error
        self.took_s = time.monotonic() - self.began

    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def outcome(self, timeout_s: float = 60.0) -> Answered:
        self._thread.join(timeout_s)
        assert self.is_done(), f"no answer within {timeout_s} s"
        return self._outcome


def ask(client: Client, sql: str, **options: Any) -> Asked:
    """Send a query without waiting for it."""
    return Asked(lambda: client.query(sql, **options))


class SlowClient:
    """A client that takes its answer when it is told to, and leaves when it is told to."""

    def __init__(
        self, keeper: KeeperProcess, sql: str, timeout_s: float, accept: str = "application/x-ndjson", path: str = "/v1/query"
    ) -> None:
        self.began = time.monotonic()
        self._connection = http.client.HTTPConnection("127.0.0.1", keeper.port, timeout=60)
        self._response: http.client.HTTPResponse | None = None
        body = json.dumps({"sql": sql, "limits": {"timeout_s": timeout_s}})
        headers = {"Authorization": f"Bearer {keeper.key}", "Accept": accept, "Content-Type": "application/json"}
        self._connection.request("POST", path, body, headers)

    @property
    def response(self) -> http.client.HTTPResponse:
        """The head of the answer; waits for it."""
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def read_all(self) -> tuple[int, bool]:
        """Take what is left: its bytes, and whether it was whole."""
        received = 0
        try:
            while chunk := self.response.read(1 << 20):
                received += len(chunk)
        except (http.client.IncompleteRead, ConnectionError):
            return received, False
        return received, True

    def leave(self) -> None:
        """Close the connection, whatever is on its way."""
        with suppress(OSError):
            self._connection.close()
        if self._response is not None:
            self._response.close()

    def __enter__(self) -> SlowClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


def begun(keeper: KeeperProcess, sql: str, **options: Any) -> tuple[SlowClient, float]:
    """An answer that has begun, and the deadline it has: on a busy machine a short one may be over before the first byte."""
    for timeout_s in (1.5, 6.0, 24.0):
        slow = SlowClient(keeper, sql, timeout_s, **options)
        if slow.response.status == 200:
            return slow, timeout_s
        slow.leave()
    raise AssertionError("no answer began")


def code_of(outcome: Answered) -> str:
    """The code of an error; `answered` for an answer."""
    if isinstance(outcome, PondkeeperError):
        return outcome.code
    return "answered" if not isinstance(outcome, Exception) else repr(outcome)


def running(client: Client, sql: str, state: str = "") -> dict[str, Any]:
    """Wait until a query whose text begins so is listed, in that state if one is given, and return its entry."""

    def find() -> dict[str, Any] | None:
        entries = [entry for entry in client.queries() if entry["sql"].startswith(sql[:60])]
        return next((entry for entry in entries if state in ("", entry["state"])), None)

    return dict(wait_until(find, what=f"{sql[:60]!r} {state} among the queries"))


def readers_by_cpu(keeper: KeeperProcess) -> list[int]:
    """The readers, those that work right now first."""
    from tests.support.processes import cpu_s

    before = {pid: cpu_s([pid]) for pid in keeper.children("reader")}
    time.sleep(0.3)
    return sorted(before, key=lambda pid: before[pid] - cpu_s([pid]))


def busy_reader(keeper: KeeperProcess) -> int:
    """The pid of the reader that works on the only query."""
    return int(wait_until(lambda: _busiest(keeper), what="a busy reader"))


def _busiest(keeper: KeeperProcess) -> int | None:
    from tests.support.processes import busy_cores

    for pid in readers_by_cpu(keeper):
        # Why so little: a long query gives way, and on a busy machine gets a small share.
        if busy_cores(pid, 0.5) > 0.05:
            return pid
    return None

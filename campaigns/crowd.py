"""Clients that write in order, each with an idempotency key per write, through the product's own Python client."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType

import httpx

from campaigns.ledger import Told, write_of
from pondkeeper.client import Client
from pondkeeper.errors import OutcomeUnknown, PondkeeperError

RETRY_FOR_S = 60.0
WRITE_TIMEOUT_S = 30.0
JOIN_S = 120.0
REFUSED_PAUSE_S = 0.02

Connect = Callable[[], Client]


class Crowd:
    """Clients number 0 to count-1, from `with` to its end."""

    def __init__(self, connect: Connect, count: int, *, pause_s: float) -> None:
        self.told = {number: Told() for number in range(count)}
        self.broken: list[str] = []
        self._connect = connect
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in self.told]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_S)
        self.broken += [f"a client hangs: {thread.name}" for thread in self._threads if thread.is_alive()]

    @property
    def commits(self) -> int:
        """How many writes were acknowledged so far."""
        return sum(len(told.committed) for told in self.told.values())

    def wait_commits(self, more: int, timeout_s: float = 60.0) -> bool:
        """Wait until so many more were acknowledged; False when that takes too long."""
        goal, give_up_at = self.commits + more, time.monotonic() + timeout_s
        while self.commits < goal:
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.002)
        return True

    def committed(self) -> dict[int, int]:
        """How many writes each client knows to be committed at this moment."""
        return {number: len(told.committed) for number, told in self.told.items()}

    def _live(self, number: int) -> None:
        chance = random.Random(number)  # Why not seeded by the plan: pauses only spread the load.
        try:
            with self._connect() as client:
                while not self._stop.is_set():
                    self._write(client, number)
                    time.sleep(chance.random() * 2 * self._pause_s)
        except Exception as error:  # noqa: BLE001  Why: a client that ends before its time is a finding, whatever ended it.
            self.broken.append(f"client {number} broke off: {type(error).__name__}: {error}")

    def _write(self, client: Client, number: int) -> None:
        told = self.told[number]
        n = told.sent + 1
        told.sent = n
        try:
            self._send(client, number, n)
            told.committed.append(n)
        except OutcomeUnknown as error:
            told.unknown.add(n)
            told.errors[error.code] += 1
        except PondkeeperError as error:
            told.refused.add(n)
            told.errors[error.code] += 1
            time.sleep(REFUSED_PAUSE_S)

    def _send(self, client: Client, number: int, n: int) -> None:
        client.execute(write_of(number, n), timeout_s=WRITE_TIMEOUT_S, idempotency_key=f"w-{number}-{n}")


class NaiveCrowd(Crowd):
    """The control: what clients do that know no keys and want to lose nothing. Bare HTTP, sent again until it is answered."""

    def __init__(self, connect: Connect, http: Callable[[], httpx.Client], count: int, *, pause_s: float) -> None:
        super().__init__(connect, count, pause_s=pause_s)
        self._http = {number: http() for number in self.told}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        for http in self._http.values():
            http.close()

    def _send(self, client: Client, number: int, n: int) -> None:  # noqa: ARG002  Why: it has its own way
        statements = [{"sql": sql, "parameters": parameters} for sql, parameters in write_of(number, n)]
        while not self._stop.is_set():
            try:
                if self._http[number].post("/v1/execute", json={"statements": statements}).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(REFUSED_PAUSE_S)
        raise OutcomeUnknown

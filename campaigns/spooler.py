"""A program that loads batches of rows, in turn with `wait=accepted` (into the spool) and `wait=commit` (through a stager).

    python -m campaigns.spooler    orders: {"url", "key", "first": n, "step"}

It says `sent n`, then `accepted n`, `committed n`, `refused n CODE` or `unknown n CODE`. Odd numbers are spooled.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from campaigns.ledger import ROWS_OF_LOAD
from campaigns.programs import Order, Programs, serve, tell

PAUSE_S = 0.1
RETRY_FOR_S = 60.0
GONE_S = 60.0


@dataclass
class LoadsTold:
    """What the loading program was told, by number. `unknown`: it was killed before it knew, or was told so."""

    sent: int = 0
    accepted: list[int] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, word: str, n: int, code: str = "") -> None:
        """Take in one line of the program."""
        if word == "sent":
            self.sent = n
        elif word in ("accepted", "committed"):
            getattr(self, word).append(n)
        else:
            getattr(self, word).add(n)
            self.errors[code] += 1

    @property
    def answered(self) -> set[int]:
        """The last numbers that it knows something of."""
        return {*self.accepted[-1:], *self.committed[-1:], *self.refused, *self.unknown, 0}


class Spooler:
    """The loading program, whichever process it is; goes on behind a number that was never answered."""

    def __init__(self, url: str, key: str) -> None:
        self.told = LoadsTold()
        self.pid = 0
        self._url, self._key = url, key
        self._gone = threading.Event()
        self._programs = Programs("campaigns.spooler", [], self._hear)

    def begin(self, *, only_spooled: bool = False) -> None:
        """Let it begin, or begin anew."""
        self._gone.clear()
        first, step = self.told.sent + 1, 2 if only_spooled else 1
        first += only_spooled and first % 2 == 0
        self.pid = self._programs.begin({"url": self._url, "key": self._key, "first": first, "step": step})

    def kill(self) -> None:
        """kill -9, and wait until it has ended."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_gone()

    def _hear(self, line: str) -> None:
        if line == "gone":
            if self.told.sent not in self.told.answered:
                self.told.unknown.add(self.told.sent)
            self._gone.set()
        else:
            word, n, *code = line.split()
            self.told.note(word, int(n), *code)

    def wait_gone(self) -> None:
        """Wait until it has ended, after a kill."""
        if not self._gone.wait(GONE_S):
            raise RuntimeError("the loading program does not end")

    def close(self) -> None:
        """End the parent."""
        self._programs.close()


def main() -> None:
    """Fork a loading program for each order."""
    import pondkeeper.client  # noqa: F401  Why: so that a program costs a fork and not a start.

    serve(_load)


def _load(order: Order) -> None:
    from pondkeeper.client import Client

    with Client(order["url"], order["key"], retry_for_s=RETRY_FOR_S) as client:
        n = order["first"]
        while True:
            _load_one(client, n)
            n += order["step"]
            time.sleep(PAUSE_S)


def _load_one(client: Any, n: int) -> None:
    from pondkeeper.errors import OutcomeUnknown, PondkeeperError

    body = "".join(json.dumps({"n": n, "r": row}) + "\n" for row in range(ROWS_OF_LOAD)).encode()
    wait = "accepted" if n % 2 else "commit"
    tell(f"sent {n}")
    try:
        outcome = client.ingest("loads", body, format="ndjson", wait=wait, idempotency_key=f"load-{n}", timeout_s=30)
    except OutcomeUnknown as error:
        tell(f"unknown {n} {error.code}")
    except PondkeeperError as error:
        tell(f"refused {n} {error.code}")
    else:
        tell(f"{outcome.outcome} {n}")


if __name__ == "__main__":
    main()

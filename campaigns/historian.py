"""Some of the clients of a recorded history, in a process of their own.

    python -m campaigns.historian CONFIG        CONFIG is JSON: url, key, clients, operations, seed, out, budget_s

Each client does its operations one after the other and records each with the machine's clock around it.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.operations import (
    APPEND,
    BROKEN,
    COMMITTED,
    DELETE,
    INSERT,
    READ,
    REFUSED,
    TAIL,
    UNKNOWN,
    UPDATE,
    Operation,
)
from pondkeeper.client import Client
from pondkeeper.errors import OutcomeUnknown, PondkeeperError, StatementFailed

KEYS = 48
HOT_KEYS = 4
RETRY_FOR_S = 60.0
PER_CLIENT = 10_000_000
MIX = {APPEND: 38, UPDATE: 14, INSERT: 10, DELETE: 8, READ: 24, TAIL: 6}
WAITS = 0.3  # of the reads so many wait for a version
WRITES = {
    APPEND: "INSERT INTO log VALUES (?, ?)",
    INSERT: "INSERT INTO rows_by_key VALUES (?, ?)",
    UPDATE: "UPDATE rows_by_key SET v = ? WHERE k = ?",
    DELETE: "DELETE FROM rows_by_key WHERE k = ?",
}


class Historian:
    """One client; `newest` is the newest version that anybody of this process was answered."""

    def __init__(self, number: int, count: int, seed: int, newest: list[int]) -> None:
        self.operations: list[Operation] = []
        self.number = number
        self._count = count
        self._chance = random.Random(f"{seed}/{number}")
        self._newest = newest
        self._n = 0

    def live(self, client: Client, ends_at: float) -> None:
        """Do all operations, one after the other, as far as the time reaches."""
        for n in range(1, self._count + 1):
            if time.monotonic() > ends_at:
                return
            self._n = n
            kind = self._chance.choices(list(MIX), list(MIX.values()))[0]
            self.operations.append(self._read(client, kind) if kind in (READ, TAIL) else self._write(client, kind))

    def _key(self) -> int:
        return self._chance.randrange(HOT_KEYS if self._chance.random() < 0.3 else KEYS)

    def _write(self, client: Client, kind: str) -> Operation:
        value, key = self.number * PER_CLIENT + self._n, self._key()
        parameters = {APPEND: [self.number, self._n], INSERT: [key, value], UPDATE: [value, key], DELETE: [key]}[kind]
        about: dict[str, Any] = {"client": self.number, "n": self._n, "kind": kind}
        if kind != APPEND:
            about |= {"key": key} | ({} if kind == DELETE else {"value": value})
        name = f"history-{self.number}-{self._n}"
        begin = time.monotonic()
        try:
            outcome = client.execute(WRITES[kind], parameters, idempotency_key=name)
        except OutcomeUnknown:
            return Operation(**about, begin=begin, end=time.monotonic(), outcome=UNKNOWN)
        except StatementFailed:
            return Operation(**about, begin=begin, end=time.monotonic(), outcome=BROKEN if kind == INSERT else REFUSED)
        except PondkeeperError:
            return Operation(**about, begin=begin, end=time.monotonic(), outcome=REFUSED)
        end = time.monotonic()
        self._newest[0] = max(self._newest[0], outcome.version)
        changed = outcome.rows_changed
        assert isinstance(changed, int)
        return Operation(**about, begin=begin, end=end, outcome=COMMITTED, version=outcome.version, changed=changed)

    def _read(self, client: Client, kind: str) -> Operation:
        at_least = self._newest[0] if self._newest[0] and self._chance.random() < WAITS else None
        key = self._key() if kind == READ else None
        sql, parameter = (
            ("SELECT v FROM rows_by_key WHERE k = ?", key)
            if kind == READ
            else ("SELECT count(*) FROM log WHERE client = ?", self.number)
        )
        begin = time.monotonic()
        answer = _insisting(lambda: client.query(sql, [parameter], at_least=at_least))
        end = time.monotonic()
        value = answer.rows[0][0] if answer.rows else None
        return Operation(
            self.number, self._n, kind, begin, end, version=answer.version, at_least=at_least, key=key, value=value
        )


def _insisting(ask: Callable[[], Any]) -> Any:
    """Ask again while the keeper or a reader is being brought back: a read has no outcome but its answer."""
    give_up_at = time.monotonic() + RETRY_FOR_S
    while True:
        try:
            return ask()
        except PondkeeperError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


def main(config: dict[str, Any]) -> None:
    """Let all clients of this process live, and write down what they did."""
    newest = [0]
    ends_at = time.monotonic() + (config["budget_s"] or math.inf)
    historians = [Historian(number, config["operations"], config["seed"], newest) for number in config["clients"]]

    def live(historian: Historian) -> None:
        with Client(config["url"], config["key"], retry_for_s=RETRY_FOR_S) as client:
            historian.live(client, ends_at)

    threads = [threading.Thread(target=live, args=(historian,)) for historian in historians]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [operation.to_json() for historian in historians for operation in historian.operations]
    Path(config["out"]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

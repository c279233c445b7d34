"""Clients that send rows with wait=accepted, over HTTP, and what is in the database afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import httpx

from pondkeeper.files.paths import DatabasePaths
from tests.support.keeper import KeeperProcess, program_environment, wait_until

ROWS_PATH = "/v1/databases/{}/tables/{}/rows"
NDJSON = {"Content-Type": "application/x-ndjson"}


def ndjson(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def send(http: httpx.Client, database: str, table: str, *rows: Any, headers: Any = NDJSON, **parameters: Any) -> httpx.Response:
    """POST rows as they are, or one body of bytes."""
    body = rows[0] if len(rows) == 1 and isinstance(rows[0], bytes) else ndjson(*rows)
    path = ROWS_PATH.format(database, table)
    return http.post(path, params={"wait": "accepted"} | parameters, content=body, headers=headers)


def accepted(answer: httpx.Response) -> str:
    """The ticket of an ingest that must have been accepted."""
    assert answer.status_code == 202, answer.text
    said = answer.json()
    assert said["outcome"] == "accepted"
    assert answer.headers["location"].endswith("/tickets/" + said["ticket"])
    return str(said["ticket"])


def outcome_of(keeper: KeeperProcess, ticket: str, timeout_s: float = 60.0) -> dict[str, Any]:
    """What became of a ticket, waited for."""
    shown = keeper.client().ticket(ticket, wait_s=timeout_s)
    assert shown["outcome"] != "waiting", shown
    return shown


def wait_drained(keeper: KeeperProcess, timeout_s: float = 60.0) -> None:
    """Wait until nothing waits in the spool."""
    client = keeper.client()

    def is_empty() -> bool:
        spool = client.status("pond")["spool"]
        return spool["waiting"] == 0 and spool["problem"] is None

    wait_until(is_empty, timeout_s=timeout_s, what="an empty spool")


@contextmanager
def lease_held(paths: DatabasePaths) -> Iterator[subprocess.Popen[str]]:
    """Another program has the lease, as `pondkeeper run` has it, until this ends."""
    code = (
        "import sys; from pathlib import Path; from pondkeeper.files.paths import DatabasePaths;"
        "from pondkeeper.writer.lease import Lease;"
        "lease = Lease(DatabasePaths(Path(sys.argv[1]), Path(sys.argv[2])), 'nightly', 'a load of an hour');"
        "lease.acquire(30); print('held', flush=True); sys.stdin.read(); lease.release()"
    )
    command = [sys.executable, "-c", code, str(paths.file), str(paths.home)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=program_environment())
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.communicate()


@dataclass
class Told:
    """What one client was told: sequence numbers that were accepted, with their tickets, and all that it sent."""

    sent: int = 0
    accepted: dict[int, str] = field(default_factory=dict)


class Senders:
    """Clients that send one row after the other and remember what was accepted; they survive any death of the keeper.

    Every second one names its rows by a key and sends a row again until it is accepted; the others go on with the next.
    """

    def __init__(self, keeper: KeeperProcess, clients: int) -> None:
        self.told = [Told() for _ in range(clients)]
        self._keeper = keeper
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    @property
    def accepted(self) -> int:
        return sum(len(told.accepted) for told in self.told)

    def wait_accepted(self, more: int, timeout_s: float = 60.0) -> None:
        goal = self.accepted + more
        wait_until(lambda: self.accepted >= goal, timeout_s=timeout_s, what=f"{more} more accepted ingests")

    def _send(self, number: int) -> None:
        told, has_keys = self.told[number], number % 2 == 0
        while not self._stop.is_set():
            try:
                with self._keeper.http() as http:
                    while not self._stop.is_set():
                        if not has_keys or told.sent in told.accepted or not told.sent:
                            told.sent += 1
                        headers = NDJSON | ({"Idempotency-Key": f"{number}/{told.sent}"} if has_keys else {})
                        answer = send(http, "pond", "t", {"client": number, "seq": told.sent}, headers=headers)
                        if answer.status_code == 202:
                            told.accepted[told.sent] = accepted(answer)
            except httpx.HTTPError:
                time.sleep(0.01)

    def check(self, file: Path) -> int:
        """Every accepted row is there once and in order, those with a key at most once, no other; how many rows."""
        rows = 0
        with duckdb.connect(str(file), read_only=True) as database:
            for number, told in enumerate(self.told):
                query = "SELECT seq FROM t WHERE client = ? ORDER BY rowid"
                found = [seq for (seq,) in database.execute(query, [number]).fetchall()]
                assert found == sorted(set(found)), "applied twice or out of order"
                lost = set(told.accepted) - set(found)
                assert not lost, f"accepted and lost: {sorted(lost)[:10]}"
                assert set(found) <= set(range(1, told.sent + 1))
                rows += len(found)
        return rows

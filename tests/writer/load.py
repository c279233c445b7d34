"""Clients that write in a row and remember what they were told; and the proof of what is in the database afterwards."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from pondkeeper.errors import OutcomeUnknown, PondkeeperError
from tests.support.keeper import KeeperProcess

SCHEMA = [
    "CREATE TABLE log (client INTEGER, seq INTEGER, half INTEGER, v BIGINT)",
    "CREATE INDEX log_v ON log (v)",
    "CREATE TABLE balance (client INTEGER PRIMARY KEY, n BIGINT)",
    "CREATE TABLE single (client INTEGER, seq INTEGER, PRIMARY KEY (client, seq))",
]
PER_CLIENT = 1_000_000


@dataclass
class Told:
    """What one client was told about each of its writes, by sequence number."""

    committed: dict[int, int] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    errors: list[PondkeeperError] = field(default_factory=list)


class Load:
    """Several clients that write until told to stop, and survive any death of anybody.

    The first `clients` of them write transactions of three statements, the `singles` after them one row each, which
    the writer joins into common transactions and statements.
    """

    def __init__(self, keeper: KeeperProcess, clients: int, singles: int = 0) -> None:
        self.clients = clients
        self.told = [Told() for _ in range(clients + singles)]
        self.versions: list[tuple[float, int]] = []
        self.stale: list[str] = []
        self._keeper = keeper
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(len(self.told))]
        self._threads.append(threading.Thread(target=self._read))

    def prepare(self) -> None:
        """Make the tables that it writes."""
        client = self._keeper.client()
        fill = [f"INSERT INTO balance VALUES ({number}, 0)" for number in range(len(self.told))]
        client.execute([*SCHEMA, *fill])

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    @property
    def commits(self) -> int:
        return sum(len(told.committed) for told in self.told)

    def wait_commits(self, more: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more writes were acknowledged."""
        goal, give_up_at = self.commits + more, time.monotonic() + timeout_s
        while self.commits < goal:
            assert time.monotonic() < give_up_at, f"{self.commits} commits of {goal}: {self.errors()[-3:]}"
            time.sleep(0.002)

    def errors(self) -> list[PondkeeperError]:
        return [error for told in self.told for error in told.errors]

    # The clients

    def _write(self, number: int) -> None:
        told, seq = self.told[number], 0
        while not self._stop.is_set():
            seq += 1
            try:
                with self._keeper_client() as client:
                    while not self._stop.is_set():
                        self._apply(client, number, seq, told)
                        seq += 1
            except OutcomeUnknown as error:
                told.unknown.add(seq)
                told.errors.append(error)
            except PondkeeperError as error:
                told.refused.add(seq)
                told.errors.append(error)
                time.sleep(0.01)

    def _keeper_client(self) -> Any:
        from pondkeeper.client.client import Client

        return Client(self._keeper.url, self._keeper.key, retry_for_s=0.0, timeout_s=30.0)

    def _apply(self, client: Any, number: int, seq: int, told: Told) -> None:
        write = self._transaction if number < self.clients else self._single
        told.committed[seq] = write(client, number, seq)

    def _single(self, client: Any, number: int, seq: int) -> int:
        return int(client.execute("INSERT INTO single VALUES (?, ?)", [number, seq], timeout_s=10).version)

    def _transaction(self, client: Any, number: int, seq: int) -> int:
        row = "INSERT INTO log VALUES (?, ?, ?, ?)"
        outcome = client.execute(
            [
                (row, [number, seq, 1, number * PER_CLIENT + seq]),
                ("UPDATE balance SET n = n + 1 WHERE client = ?", [number]),
                (row, [number, seq, 2, number * PER_CLIENT + seq]),
            ],
            timeout_s=10,
        )
        return int(outcome.version)

    def _read(self) -> None:
        """Read one's writes: an answer for `at_least` the version of a commit has that commit; versions only grow."""
        while not self._stop.is_set():
            seen = [(number, max(told.committed, default=0)) for number, told in enumerate(self.told)]
            try:
                with self._keeper_client() as client:
                    for number, seq in seen:
                        version = self.told[number].committed.get(seq, 0)
                        self._read_own(client, number, seq, version)
            except PondkeeperError:
                time.sleep(0.02)

    def _table(self, number: int) -> str:
        return "log" if number < self.clients else "single"

    def _read_own(self, client: Any, number: int, seq: int, version: int) -> None:
        sql = f"SELECT count(*) FROM {self._table(number)} WHERE client = ? AND seq = ?"
        answer = client.query(sql, [number, seq], at_least=version, timeout_s=15)
        if seq and answer.scalar() != (2 if number < self.clients else 1):
            self.stale.append(f"client {number} seq {seq} answered {version}: {answer.scalar()} rows in {answer.version}")
        if answer.version < version:
            self.stale.append(f"asked for {version}, answered from {answer.version}")
        self.versions.append((time.monotonic(), answer.version))


def check(file: Path, load: Load) -> None:
    """Every acknowledged write is there exactly once and in order, every unknown one at most once, none by half.

    Read by DuckDB itself, from the file: through a full scan, and through each index.
    """
    with duckdb.connect(str(file)) as database:
        for number, told in enumerate(load.told):
            (_check_client if number < load.clients else _check_single)(database, number, told)
        _check_indexes(database)
    grown = [version for _, version in load.versions]
    assert grown == sorted(grown), "a reader was sent back in time"
    assert not load.stale, load.stale[:5]


def _check_client(database: duckdb.DuckDBPyConnection, number: int, told: Told) -> None:
    query = "SELECT seq, list_sort(list(half)) FROM log WHERE client = ? GROUP BY seq"
    found: dict[int, list[int]] = dict(database.execute(query, [number]).fetchall())
    assert all(halves == [1, 2] for halves in found.values()), "half a transaction, or one twice"
    missing = set(told.committed) - set(found)
    assert not missing, f"acknowledged and lost: {sorted(missing)[:10]}"
    extra = set(found) - set(told.committed) - told.unknown
    assert not extra, f"refused and there: {sorted(extra)[:10]}"
    order = [seq for (seq,) in database.execute("SELECT seq FROM log WHERE client = ? AND half = 1 ORDER BY rowid", [number]).fetchall()]
    assert order == sorted(order), "applied out of order"
    [(balance,)] = database.execute("SELECT n FROM balance WHERE client = ?", [number]).fetchall()
    assert balance == len(found)


def _check_single(database: duckdb.DuckDBPyConnection, number: int, told: Told) -> None:
    rows = database.execute("SELECT seq FROM single WHERE client = ? ORDER BY rowid", [number]).fetchall()
    found = [seq for (seq,) in rows]
    assert found == sorted(set(found)), "applied twice or out of order"
    assert not set(told.committed) - set(found), f"acknowledged and lost: {sorted(set(told.committed) - set(found))[:10]}"
    extra = set(found) - set(told.committed) - told.unknown
    assert not extra, f"refused and there: {sorted(extra)[:10]}"


def _check_indexes(database: duckdb.DuckDBPyConnection) -> None:
    """Trap: 1.5 loses entries of secondary indexes after a crash; a look-up by index must find what a scan finds."""
    rows = database.execute("SELECT v, count(*) FROM log GROUP BY v ORDER BY v DESC").fetchall()
    database.execute("SET index_scan_percentage = 1.0")  # Why: in a small table the engine would rather scan.
    database.execute(f"SET index_scan_max_count = {PER_CLIENT}")
    plan = str(database.execute("EXPLAIN ANALYZE SELECT * FROM log WHERE v = 1000001").fetchall())
    assert "Index Scan" in plan, plan
    for value, count in rows:
        [(found,)] = database.execute(f"SELECT count(*) FROM log WHERE v = {value}").fetchall()
        assert found == count == 2, f"the index finds {found} of {count} rows of {value}"

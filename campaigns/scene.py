"""A keeper under load: eight clients that write, one that reads, and a look that proves what is in the database."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from campaigns.crowd import RETRY_FOR_S, Crowd, NaiveCrowd
from campaigns.holder import HOLDER, Holders
from campaigns.ledger import LOADS_SCHEMA, LOOK, LOOK_LOADS, PER_CLIENT, SCHEMA, Book, Found, Told
from campaigns.loads import LoadBook
from campaigns.spooler import LoadsTold, Spooler
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess

CLIENTS = 8
PAUSE_S = 0.008
LOOK_TIMEOUT_S = 30.0
READ_PAUSE_S = 0.05
DRAINED_WITHIN_S = 90.0


class Scene:
    """One database, its keeper, its clients; `with Scene(folder) as scene:`."""

    def __init__(
        self,
        folder: Path,
        *,
        keyed: bool = True,
        loads: bool = False,
        retry_for_s: float = RETRY_FOR_S,
        under: list[str] | None = None,
        disk: Path | None = None,
    ) -> None:
        """`disk`: where the file lies if not in `folder`, seen only by the keeper, which is started by `under`."""
        self.folder = folder
        self.keeper = KeeperProcess(
            (disk or folder) / "pond.duckdb", home=folder / "home" if disk else None, under=under or []
        )
        self._retry_for_s = retry_for_s
        self._keyed = keyed
        self.crowd: Crowd
        self.holders: Holders | None = None
        self.spooler: Spooler | None = None
        self.book = Book()
        self.load_book = LoadBook()
        self.wrong: list[str] = []
        self.reads = 0
        self._has_holders = disk is None
        self._has_loads = loads
        self._probes = 0
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read)

    # Life

    def __enter__(self) -> Scene:
        self.keeper.start()
        with self.connect() as client:
            client.execute([*SCHEMA, LOADS_SCHEMA, "CREATE TABLE probes (n INTEGER)"])
        if self._has_holders:
            self.holders = Holders(self.keeper.target, self.keeper.home.root)
        self.crowd = self._make_crowd()
        self.crowd.__enter__()
        self._reader.start()
        if self._has_loads:
            self.spooler = Spooler(self.keeper.url, self.keeper.key)
            self.spooler.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.calm()
        for programs in (self.holders, self.spooler):
            if programs is not None:
                programs.close()
        self.keeper.dispose()

    def _make_crowd(self) -> Crowd:
        def connect() -> Client:
            return self.connect(self._retry_for_s)

        if self._keyed:
            return Crowd(connect, CLIENTS, pause_s=PAUSE_S)
        return NaiveCrowd(connect, self.keeper.http, CLIENTS, pause_s=PAUSE_S)

    def calm(self) -> None:
        """Let the clients end; the keeper goes on."""
        if not self._stop.is_set():
            if self.spooler is not None:
                self.spooler.kill()
            self.crowd.__exit__(None, None, None)
            self._stop.set()
            self._reader.join(60)

    def connect(self, retry_for_s: float = RETRY_FOR_S) -> Client:
        """A client of the keeper, whichever process that is when it is used."""
        return Client(self.keeper.url, self.keeper.key, retry_for_s=retry_for_s)

    @property
    def told(self) -> dict[int, Told]:
        """What everybody who writes was told, by client."""
        return self.crowd.told | ({HOLDER: self.holders.told} if self.holders else {})

    # Looking

    def probe(self, client: Client) -> int:
        """A write of our own, acknowledged: its version."""
        self._probes += 1
        key = f"probe-{self._probes}"
        return client.execute("INSERT INTO probes VALUES (?)", [self._probes], idempotency_key=key).version

    def look(self, client: Client) -> list[str]:
        """Prove what is in the newest version, beside the clients that go on writing; what is wrong with it."""
        before = {number: len(told.committed) for number, told in self.told.items()}
        loads_before = len(self.spooler.told.committed) if self.spooler else 0
        version = self.probe(client)
        answer = client.query(LOOK, [self.book.place], at_least=version, timeout_s=LOOK_TIMEOUT_S)
        wrong = self.book.judge(Found.of_row(answer.rows[0]), before, self.told)
        if self.spooler is not None:
            loads = client.query(LOOK_LOADS, [self.load_book.place], at_least=version, timeout_s=LOOK_TIMEOUT_S)
            wrong += self.load_book.judge(loads.rows[0], loads_before, self.spooler.told)
        return [*wrong, *self._take_wrong()]

    def look_patiently(self) -> list[str]:
        """The same by a client that comes back until it has its answer."""
        with self.connect() as client:
            return self.look(client)

    def look_at_all(self, client: Client) -> list[str]:
        """Prove everything once more from the first row on; the clients have ended."""
        self.book = Book()
        return self.look(client)

    def look_at_the_end(self) -> list[str]:
        """Stop everything in order and prove the whole file, by DuckDB itself: by a full scan and through the index."""
        self.calm()
        wrong = self._drain_the_spool()
        code = self.keeper.stop()
        wrong += [f"the keeper stopped with {code}"] if code else []
        with duckdb.connect(str(self.keeper.target)) as database:
            before = {number: len(told.committed) for number, told in self.told.items()}
            row = database.execute(LOOK, [0]).fetchone()
            assert row is not None
            wrong += Book().judge(Found.of_row(row), before, self.told)
            wrong += _missing_in_the_index(database)
            if self.spooler is not None:
                wrong += judge_all_loads(database, self.spooler.told)
        if "Traceback" in self.keeper.log():
            wrong.append("there is a traceback in the keeper's log")
        return [*wrong, *self._take_wrong()]

    def _drain_the_spool(self) -> list[str]:
        """Wait until what was accepted is applied."""
        give_up_at = time.monotonic() + DRAINED_WITHIN_S
        with self.connect() as client:
            while self.spooler is not None and (spool := client.tickets(waiting=1, settled=0)["spool"])["waiting"]:
                if time.monotonic() > give_up_at:
                    return [f"the spool is not applied: {spool}"]
                time.sleep(0.05)
        return []

    def _take_wrong(self) -> list[str]:
        wrong, self.wrong = self.wrong + self.crowd.broken, []
        self.crowd.broken.clear()
        return wrong

    def _read(self) -> None:
        """Read the sums again and again: versions never go back, and no version shows half a transfer."""
        seen = 0
        while not self._stop.wait(READ_PAUSE_S):
            try:
                with Client(self.keeper.url, self.keeper.key, retry_for_s=0.0) as client:
                    while not self._stop.wait(READ_PAUSE_S):
                        answer = client.query("SELECT coalesce(sum(amount), 0)::BIGINT FROM journal")
                        if answer.scalar() != 0:
                            self.wrong.append(f"half applied: version {answer.version} has half a transfer")
                        if answer.version < seen:
                            self.wrong.append(f"a reader was sent back from version {seen} to {answer.version}")
                        seen, self.reads = answer.version, self.reads + 1
            except PondkeeperError:
                continue  # Why: while the keeper is dead nobody answers; what it answers later must be right.

    # Artefacts

    def keep(self, violations: list[str], about: dict[str, Any]) -> None:
        """Write down what everybody was told, beside the database and the keeper's log."""
        told = {str(number): told.to_json() for number, told in self.told.items()}
        loads = vars(self.spooler.told) if self.spooler else {}
        evidence = {"violations": violations, **about, "told": told, "loads": loads}
        (self.folder / "told.json").write_text(json.dumps(evidence, indent=1, default=str))


def judge_all_loads(database: duckdb.DuckDBPyConnection, told: LoadsTold) -> list[str]:
    """Every load, when the spool is empty."""
    row = database.execute(LOOK_LOADS, [0]).fetchone()
    assert row is not None
    book = LoadBook()
    return [*book.judge(row, len(told.committed), told), *book.judge_the_end(told)]


def _missing_in_the_index(database: duckdb.DuckDBPyConnection) -> list[str]:
    """Trap: 1.5 can lose entries of secondary indexes after a crash; a look-up by index must find what a scan finds."""
    rows = database.execute("SELECT v FROM entries").fetchall()
    database.execute("SET index_scan_percentage = 1.0")  # Why: in a small table the engine would rather scan.
    database.execute(f"SET index_scan_max_count = {PER_CLIENT}")
    plan = str(database.execute("EXPLAIN ANALYZE SELECT * FROM entries WHERE v = 1").fetchall())
    if "Index Scan" not in plan:
        return [f"the look-up did not use the index: {plan[:200]}"]
    step = max(1, len(rows) // 5_000)
    missing = [v for (v,) in rows[::step] if database.execute(f"SELECT 1 FROM entries WHERE v = {v}").fetchone() is None]
    return [f"the index has lost {len(missing)} of {len(rows[::step])} rows, such as v = {missing[0]}"] if missing else []


def ready_again(scene: Scene) -> float:
    """Seconds until a write of our own is acknowledged, from now. Why not by the client's own patience: its pauses grow."""
    began = time.monotonic()
    with scene.connect(0.0) as client:
        while True:
            try:
                scene.probe(client)
            except PondkeeperError:
                if time.monotonic() > began + RETRY_FOR_S:
                    raise
                time.sleep(0.01)
            else:
                return time.monotonic() - began

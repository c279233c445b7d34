"""Ten million rows of lineitem as an Arrow table in a client: over HTTP, over Quack, and in-process.

Each client is a process of its own that fetches the whole table, in alternating rounds. All tables must agree in their
row count and in two sums. Quack is measured in two ways, reading the attached table and sending the statement; the
better one counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import quack
from benchmarks.clients import ClientKind, Clients
from benchmarks.keeper import keeping
from benchmarks.report import Figure, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import lineitem, workplace

SQL = "SELECT * FROM lineitem"
THREADS = 2


class AnswersDiffer(Exception):
    """Two ways to the same table gave different ones."""


@dataclass(frozen=True)
class Fetched:
    """One fetch: how long it took, and what must be equal in all."""

    seconds: float
    bytes: int
    digest: tuple[int, int, Decimal]


def _timed(fetch: Callable[[], Any]) -> Fetched:
    import pyarrow.compute as pc

    begun = time.perf_counter()
    table = fetch()
    seconds = time.perf_counter() - begun
    keys = pc.sum(table["l_orderkey"]).as_py()
    return Fetched(seconds, table.nbytes, (table.num_rows, keys, pc.sum(table["l_extendedprice"]).as_py()))


@dataclass(frozen=True)
class OverLean:
    """Arrow over HTTP by the lean client."""

    url: str
    key: str

    def open(self) -> Callable[[], Fetched]:
        from benchmarks.lean import LeanClient

        client = LeanClient(self.url, self.key)
        return lambda: _timed(lambda: client.arrow(SQL))


@dataclass(frozen=True)
class OverLibrary:
    """Arrow over HTTP by `pondkeeper.client`."""

    url: str
    key: str

    def open(self) -> Callable[[], Fetched]:
        from pondkeeper.client import Client

        client = Client(self.url, self.key)
        return lambda: _timed(lambda: client.arrow(SQL))


@dataclass(frozen=True)
class OverQuack:
    port: int
    sql: str

    def open(self) -> Callable[[], Fetched]:
        connection = quack.connect(self.port)
        return lambda: _timed(lambda: connection.execute(self.sql).to_arrow_table())


@dataclass(frozen=True)
class InProcess:
    file: Path

    def open(self) -> Callable[[], Fetched]:
        import duckdb

        connection = duckdb.connect(str(self.file), read_only=True, config={"threads": THREADS})
        connection.execute("SET enable_progress_bar = false")
        return lambda: _timed(lambda: connection.execute(SQL).to_arrow_table())


def measure(this: Run) -> None:
    rows, rounds = (1_000_000, 3) if this.short else (10_000_000, 5)
    source = lineitem(this, rows)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(workplace(this, source, name)) for name in ("ours", "peer"))
        keeper = stack.enter_context(keeping(ours, readers__threads=str(THREADS)))
        port = stack.enter_context(quack.serving(theirs, THREADS))
        ways: dict[str, ClientKind] = {
            "lean": OverLean(keeper.url, keeper.key),
            "library": OverLibrary(keeper.url, keeper.key),
            "quack table": OverQuack(port, "SELECT * FROM remote.lineitem"),
            "quack statement": OverQuack(port, f"FROM quack_query_by_name('remote', '{SQL}')"),
            "in-process": InProcess(source),
        }
        clients = {name: stack.enter_context(Clients([way])) for name, way in ways.items()}
        fetched = _rounds(this, clients, rounds)
    _check(fetched)
    _report(this, rows, fetched)


def _rounds(this: Run, clients: dict[str, Clients], rounds: int) -> dict[str, list[Fetched]]:
    """One fetch to warm up, then that many that count, all ways in turn."""
    fetched: dict[str, list[Fetched]] = {name: [] for name in clients}
    for number in range(rounds + 1):
        for name, client in clients.items():
            one: Fetched = client.once()[0]
            this.say(f"{name}: {one.seconds:.2f} s, {one.bytes / 1e9:.2f} GB")
            if number:
                fetched[name].append(one)
    return fetched


def _check(fetched: dict[str, list[Fetched]]) -> None:
    digests = {one.digest for samples in fetched.values() for one in samples}
    if len(digests) != 1:
        raise AnswersDiffer(str(digests))


def _report(this: Run, rows: int, fetched: dict[str, list[Fetched]]) -> None:
    seconds = {name: median(one.seconds for one in samples) for name, samples in fetched.items()}
    peer = min(seconds["quack table"], seconds["quack statement"])
    name = f"{rows / 1e6:g} M rows of lineitem to Arrow"
    size = f"{fetched['lean'][0].bytes / 1e9:.2f} GB over HTTP; {rows / seconds['lean'] / 1e6:.1f} M rows/s"
    this.add(
        Figure(f"{name}, lean client", seconds["lean"], "s", "Quack", peer, ratio_at_most(0.6), size),
        Figure(f"{name}, pondkeeper.client", seconds["library"], "s", "Quack", peer),
        Figure(f"{name}, lean client", seconds["lean"], "s", "in-process", seconds["in-process"]),
    )


if __name__ == "__main__":
    sys.exit(run("lineitem", __doc__, measure, budget_s=300, short_budget_s=90))

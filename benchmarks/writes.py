"""One-row durable inserts per second over HTTP and through a pipeline, beside Quack and DuckDB in the client's own process.

Every write is committed and fsynced before its answer, on all sides. Clients of a server are in two processes; turns
alternate. Then four clients update one row: how many of their updates fail. At last where the time goes: the CPU that each
process spends on a write, the fsyncs of a commit, and what the same rows cost the engine alone.
"""

from __future__ import annotations

import multiprocessing as mp
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks import quack
from benchmarks.crowd import HttpCrowd, PipelineCrowd, QuackCrowd, Tally, in_threads
from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.report import Bar, Figure, ratio_at_least
from benchmarks.running import Run, run
from benchmarks.spending import Spending, fsync_s, spending

TABLES = "CREATE TABLE t (k INTEGER, name VARCHAR, x DOUBLE); CREATE TABLE one (k INTEGER PRIMARY KEY, n BIGINT); INSERT INTO one VALUES (1, 0)"
INSERT, ROW = "INSERT INTO t VALUES (?, ?, ?)", [1, "a name", 1.5]
INSERT_TEXT = "INSERT INTO t VALUES (1, ''a name'', 1.5)"  # quoted for a literal in SQL
UPDATE = "UPDATE one SET n = n + 1 WHERE k = 1"
BARS = {1: 1.0, 8: 2.0, 64: 3.0}
PIPELINED_BAR = 10.0
IN_PROCESS_THREADS = 8
PROCESSES = 2
_CONTEXT = mp.get_context("spawn")
Crowd = HttpCrowd | QuackCrowd | PipelineCrowd


class Peers:
    """Our keeper, a Quack server and a file of our own, and the processes of the clients."""

    def __init__(self, this: Run, stack: ExitStack) -> None:
        self.turn_s, self.turns = (1.0, 1) if this.short else (3.0, 5)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=this.work)))
        ours, theirs, self.alone = [_database(folder / name) for name in ("ours", "peer", "alone")]
        self.keeper: RunningKeeper = stack.enter_context(keeping(ours))
        self.port: int = stack.enter_context(quack.serving(theirs))
        self._pools = [stack.enter_context(_CONTEXT.Pool(1)) for _ in range(PROCESSES)]

    def http(self, clients: int, sql: str = INSERT, row: list[Any] | None = None, *, with_keys: bool = False) -> HttpCrowd:
        return HttpCrowd(self.keeper.url, self.keeper.key, clients, sql, ROW if row is None else row, with_keys)

    def together(self, crowds: list[Crowd], seconds: float) -> Tally:
        """Run the crowds at the same time, each in a process of its own."""
        running = [pool.apply_async(_run, (crowd, seconds)) for pool, crowd in zip(self._pools, crowds, strict=False)]
        tallies: list[Tally] = [each.get() for each in running]
        error = next((tally.error for tally in tallies if tally.error), "")
        rate = sum(tally.rate for tally in tallies)
        return Tally(sum(tally.done for tally in tallies), sum(tally.failed for tally in tallies), error, rate)

    def shared(self, crowd: HttpCrowd | QuackCrowd) -> list[Crowd]:
        """The crowd's clients shared out over the processes."""
        if crowd.count < PROCESSES:
            return [crowd]
        return [replace(crowd, count=crowd.count // PROCESSES)] * PROCESSES

    def rates(self, *sides: Callable[[], float]) -> list[float]:
        """The median rate of each side, turn by turn; the first turn warms up."""
        found: list[list[float]] = [[] for _ in sides]
        for turn in range(self.turns + 1):
            for values, side in zip(found, sides, strict=True):
                rate = side()
                if turn:
                    values.append(rate)
        return [median(values) for values in found]

    def rate_of(self, crowds: list[Crowd]) -> float:
        tally = self.together(crowds, self.turn_s)
        if tally.failed:
            raise RuntimeError(f"{tally.failed} writes failed: {tally.error}")
        return tally.rate

    def in_process(self, threads: int) -> float:
        """Inserts per second by threads of this process, each with a cursor and its own commits."""
        with duckdb.connect(str(self.alone)) as connection:
            cursors = [connection.cursor() for _ in range(threads)]
            tally = in_threads([lambda each=each: each.execute(INSERT, ROW) for each in cursors], self.turn_s)  # type: ignore[misc]  # mypy infers no lambda with a default
        return tally.rate


def measure(this: Run) -> None:
    with ExitStack() as stack:
        peers = Peers(this, stack)
        for clients, bar in BARS.items():
            this.say(f"{clients} clients")
            this.add(*_over_http(peers, clients, bar))
        this.say("pipelined")
        this.add(*_pipelined(peers))
        this.say("keys")
        this.add(*_with_keys(peers))
        this.say("one row")
        this.add(_one_row(peers))
        this.say("where the time goes")
        this.add(*_profile(peers))


def _database(folder: Path) -> Path:
    folder.mkdir()
    file = folder / "writes.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute(TABLES)
    return file


def _over_http(peers: Peers, clients: int, bar: float) -> list[Figure]:
    sides: list[Callable[[], float]] = [
        lambda: peers.rate_of(peers.shared(peers.http(clients))),
        lambda: peers.together(peers.shared(QuackCrowd(peers.port, clients, INSERT_TEXT)), peers.turn_s).rate,
    ]
    if clients == max(BARS):
        sides.append(lambda: peers.in_process(IN_PROCESS_THREADS))
    ours, theirs, *alone = peers.rates(*sides)
    figures = [Figure(f"one-row inserts, {clients} clients", ours, "/s", "Quack", theirs, ratio_at_least(bar))]
    if alone:
        name = f"one-row inserts, {clients} clients, to {IN_PROCESS_THREADS} threads in-process"
        figures.append(Figure(name, ours, "/s", "autocommit", alone[0], ratio_at_least(1.0)))
    return figures


def _pipelined(peers: Peers) -> list[Figure]:
    crowd = PipelineCrowd(peers.keeper.home, INSERT, list(ROW))
    ours, alone, threads = peers.rates(
        lambda: peers.rate_of([crowd]), lambda: peers.in_process(1), lambda: peers.in_process(IN_PROCESS_THREADS)
    )
    note = f"with keys; {ours / threads:.1f} times the {threads:,.0f}/s of {IN_PROCESS_THREADS} threads in-process"
    name = "one-row inserts, one pipeline without HTTP"
    return [Figure(name, ours, "/s", "autocommit", alone, ratio_at_least(PIPELINED_BAR), note)]


def _with_keys(peers: Peers) -> list[Figure]:
    """What an Idempotency-Key on every write costs."""
    figures = []
    for clients in (1, max(BARS)):
        keyed, plain = peers.rates(
            lambda clients=clients: peers.rate_of(peers.shared(peers.http(clients, with_keys=True))),  # type: ignore[misc]  # mypy infers no lambda with a default
            lambda clients=clients: peers.rate_of(peers.shared(peers.http(clients))),  # type: ignore[misc]  # mypy infers no lambda with a default
        )
        figures.append(Figure(f"one-row inserts with keys, {clients} clients", keyed, "/s", "without keys", plain))
    return figures


def _run(crowd: Crowd, seconds: float) -> Tally:
    return crowd.run(seconds)


def _one_row(peers: Peers) -> Figure:
    ours = peers.together([peers.http(2, UPDATE, [])] * PROCESSES, peers.turn_s)
    theirs = peers.together([QuackCrowd(peers.port, 2, UPDATE)] * PROCESSES, peers.turn_s)
    share = 100 * theirs.failed / max(1, theirs.failed + theirs.done)
    note = f"{ours.rate:.0f}/s; Quack {theirs.rate:.0f}/s, {share:.0f}% of its updates failed"
    name = "four clients updating one row: failed updates"
    return Figure(name, ours.failed, "", "Quack", theirs.failed or None, Bar("measured", "<=", 0), note)


def _profile(peers: Peers) -> list[Figure]:
    """CPU per write and process, and the share of the time in which nobody had the processor."""
    figures = []
    ways: dict[str, list[Crowd]] = {f"{clients} clients": peers.shared(peers.http(clients)) for clients in BARS}
    ways["a pipeline"] = [PipelineCrowd(peers.keeper.home, INSERT, list(ROW))]
    for way, crowds in ways.items():
        with spending(peers.keeper.pid) as spent:
            began = time.perf_counter()
            tally = peers.together(crowds, peers.turn_s)
            spent.elapsed_s = time.perf_counter() - began
        figures.append(_cost(way, spent, tally))
    figures.append(Figure("one fsync of 4 KiB on this disk", 1e6 * fsync_s(peers.alone.parent), "µs"))
    return figures


def _cost(way: str, spent: Spending, tally: Tally) -> Figure:
    each = ", ".join(f"{name} {1e6 * cpu_s / tally.done:.0f}" for name, cpu_s in spent.by_process.items() if cpu_s)
    wall = 1e6 * spent.elapsed_s / tally.done
    note = f"µs of CPU per write: {each}; {wall:.0f} µs between two answers"
    return Figure(f"CPU of the keeper's side per write, {way}", 1e6 * spent.total_s / tally.done, "µs", note=note)


if __name__ == "__main__":
    sys.exit(run("writes", __doc__, measure, budget_s=300, short_budget_s=120))

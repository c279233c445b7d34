"""One-row durable inserts per second over HTTP, beside Quack and beside DuckDB in the client's own process.

Every write is committed and fsynced before its answer, on all sides. Clients of a server are in two processes; turns
alternate. Then four clients update one row: how many of their updates fail.
"""

from __future__ import annotations

import multiprocessing as mp
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks import quack
from benchmarks.crowd import HttpCrowd, QuackCrowd, Tally, in_threads
from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.report import Bar, Figure, ratio_at_least
from benchmarks.running import Run, run

TABLES = "CREATE TABLE t (k INTEGER, name VARCHAR, x DOUBLE); CREATE TABLE one (k INTEGER PRIMARY KEY, n BIGINT); INSERT INTO one VALUES (1, 0)"
INSERT, ROW = "INSERT INTO t VALUES (?, ?, ?)", [1, "a name", 1.5]
INSERT_TEXT = "INSERT INTO t VALUES (1, ''a name'', 1.5)"  # quoted for a literal in SQL
UPDATE = "UPDATE one SET n = n + 1 WHERE k = 1"
BARS = {1: 1.0, 8: 2.0, 64: 3.0}
IN_PROCESS_THREADS = 8
PROCESSES = 2
_CONTEXT = mp.get_context("spawn")
Crowd = HttpCrowd | QuackCrowd


def measure(this: Run) -> None:
    turn_s, turns = (1.0, 1) if this.short else (3.0, 5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=this.work)))
        files = [_database(folder / name) for name in ("ours", "peer", "alone")]
        keeper = stack.enter_context(keeping(files[0]))
        port = stack.enter_context(quack.serving(files[1]))
        pools = [stack.enter_context(_CONTEXT.Pool(1)) for _ in range(PROCESSES)]
        ours_at_most = 0.0
        for clients, bar in BARS.items():
            this.say(f"{clients} clients")
            ours, theirs = _inserts(pools, keeper, port, clients, turn_s, turns)
            this.add(Figure(f"one-row inserts, {clients} clients", ours, "/s", "Quack", theirs, ratio_at_least(bar)))
            ours_at_most = ours
        alone = _in_process(files[2], turn_s)
        name = f"one-row inserts, 64 clients, to {IN_PROCESS_THREADS} threads in-process"
        this.add(Figure(name, ours_at_most, "/s", "autocommit", alone, ratio_at_least(1.0)))
        this.add(_one_row(pools, keeper, port, turn_s))


def _database(folder: Path) -> Path:
    folder.mkdir()
    file = folder / "writes.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute(TABLES)
    return file


def _inserts(
    pools: list[Any], keeper: RunningKeeper, port: int, clients: int, turn_s: float, turns: int
) -> tuple[float, float]:
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        ours = _together(pools, [HttpCrowd(keeper.url, keeper.key, n, INSERT, list(ROW)) for n in _shares(clients)], turn_s)
        theirs = _together(pools, [QuackCrowd(port, n, INSERT_TEXT) for n in _shares(clients)], turn_s)
        if ours.failed:
            raise RuntimeError(f"{ours.failed} inserts failed: {ours.error}")
        if turn:  # the first one warms up
            rates[0].append(ours.done / turn_s)
            rates[1].append(theirs.done / turn_s)
    return median(rates[0]), median(rates[1])


def _shares(clients: int) -> list[int]:
    """How many clients each process has."""
    return [clients] if clients < PROCESSES else [clients // PROCESSES] * PROCESSES


def _together(pools: list[Any], crowds: list[Any], seconds: float) -> Tally:
    running = [pool.apply_async(_run, (crowd, seconds)) for pool, crowd in zip(pools, crowds, strict=False)]
    tallies: list[Tally] = [each.get() for each in running]
    error = next((tally.error for tally in tallies if tally.error), "")
    return Tally(sum(tally.done for tally in tallies), sum(tally.failed for tally in tallies), error)


def _run(crowd: Crowd, seconds: float) -> Tally:
    return crowd.run(seconds)


def _in_process(file: Path, turn_s: float) -> float:
    with duckdb.connect(str(file)) as connection:
        cursors = [connection.cursor() for _ in range(IN_PROCESS_THREADS)]
        tally = in_threads([lambda each=each: each.execute(INSERT, ROW) for each in cursors], turn_s)  # type: ignore[misc]
    return tally.done / turn_s


def _one_row(pools: list[Any], keeper: RunningKeeper, port: int, turn_s: float) -> Figure:
    ours = _together(pools, [HttpCrowd(keeper.url, keeper.key, 2, UPDATE, [])] * PROCESSES, turn_s)
    theirs = _together(pools, [QuackCrowd(port, 2, UPDATE)] * PROCESSES, turn_s)
    share = 100 * theirs.failed / max(1, theirs.failed + theirs.done)
    note = f"{ours.done / turn_s:.0f}/s; Quack {theirs.done / turn_s:.0f}/s, {share:.0f}% of its updates failed"
    name = "four clients updating one row: failed updates"
    return Figure(name, ours.failed, "", "Quack", theirs.failed or None, Bar("measured", "<=", 0), note)


if __name__ == "__main__":
    sys.exit(run("writes", __doc__, measure, budget_s=240, short_budget_s=120))

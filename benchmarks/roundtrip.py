"""`select 1`: the round trip of one client, and the requests per second of four, beside a Quack server's.

Both servers serve the same small database and are up during the whole run; short turns alternate between them, so that
what else the machine does falls on both. Each client is a process with a kept-alive connection that turns the answer
into Python values: ours the lean client (benchmarks/lean.py) reading JSON, Quack's a DuckDB with the server attached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks import quack
from benchmarks.clients import ClientKind, Clients, LeanQuery, LibraryQuery, QuackQuery, Sample, latencies_ms
from benchmarks.keeper import keeping
from benchmarks.report import Figure, percentile, ratio_at_least, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import tpch, workplace

SQL = "select 1"
MANY = 4


def measure(this: Run) -> None:
    turn_s, turns = (0.5, 4) if this.short else (2.0, 10)
    source = tpch(this, 0.1)
    with ExitStack() as stack:
        ours, peer = (stack.enter_context(workplace(this, source, name)) for name in ("ours", "peer"))
        keeper = stack.enter_context(keeping(ours))
        theirs = QuackQuery(stack.enter_context(quack.serving(peer)), SQL)
        lean, library = LeanQuery(keeper.url, keeper.key, SQL), LibraryQuery(keeper.url, keeper.key, SQL)
        _one_client(this, _alternate([[lean], [theirs], [library]], turn_s, turns))
        _many_clients(this, _alternate([[lean] * MANY, [theirs] * MANY], turn_s, turns), turn_s)


def _alternate(groups: Sequence[Sequence[ClientKind]], turn_s: float, turns: int) -> list[list[list[Sample]]]:
    """For each group of clients its samples, turn by turn; a first turn to warm up does not count."""
    opened = [Clients(group) for group in groups]
    results: list[list[list[Sample]]] = [[] for _ in groups]
    try:
        for clients in opened:
            clients.__enter__()
        for turn in range(turns + 1):
            for clients, result in zip(opened, results, strict=True):
                samples = clients.run(turn_s)
                if turn:
                    result.append(samples)
    finally:
        for clients in opened:
            clients.__exit__(None, None, None)
    return results


def _one_client(this: Run, results: list[list[list[Sample]]]) -> None:
    ours, theirs, library = ([latency for turn in turns for latency in latencies_ms(turn)] for turns in results)
    peer = median(theirs)
    fastest = [percentile(values, 0.1) for values in (ours, theirs)]
    note = f"the fastest tenth, which a busy machine disturbs least: {fastest[0]:.3f} ms, Quack {fastest[1]:.3f} ms"
    this.add(
        Figure("select 1, one client, p50", median(ours), "ms", "Quack", peer, ratio_at_most(1.0), note),
        Figure("select 1, one client, p99", percentile(ours, 0.99), "ms", "Quack", percentile(theirs, 0.99)),
        Figure("select 1, one client, p50, by pondkeeper.client", median(library), "ms", "Quack", peer),
    )


def _many_clients(this: Run, results: list[list[list[Sample]]], turn_s: float) -> None:
    ours, theirs = (median(len(latencies_ms(turn)) / turn_s for turn in turns) for turns in results)
    errors = [error for turns in results for turn in turns for sample in turn for error in sample.errors]
    name = f"select 1, {MANY} clients, requests per second"
    note = f"{len(errors)} errors, the first: {errors[0]}" if errors else ""
    this.add(Figure(name, ours, "/s", "Quack", theirs, ratio_at_least(1.0), note))


if __name__ == "__main__":
    sys.exit(run("roundtrip", __doc__, measure, budget_s=180, short_budget_s=60))

"""The 22 queries of TPC-H at scale factor 1: over HTTP, and in-process with the same number of threads.

Both read the same snapshot; every answer over HTTP must equal the one in-process. Rounds alternate, query by query, and
a query's time is the best of its rounds. The answers travel as Arrow and end as Arrow tables on both sides.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
from pyarrow import Table

from benchmarks.extensions import load
from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.report import Figure, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import tpch, workplace

THREADS = 2
RELATIVE_TOLERANCE = 1e-9


class AnswersDiffer(Exception):
    """A query gave different answers over HTTP and in-process."""


@dataclass
class Timing:
    """The best times of one query so far, in seconds."""

    http: float = math.inf
    in_process: float = math.inf


def queries() -> dict[int, str]:
    """The text of the 22 queries, from DuckDB's tpch extension."""
    with duckdb.connect() as connection:
        load(connection, "tpch")
        rows = connection.execute("SELECT query_nr, query FROM tpch_queries() ORDER BY query_nr").fetchall()
    return {number: text.strip().rstrip(";") for number, text in rows}


def measure(this: Run) -> None:
    scale, rounds = (0.1, 2) if this.short else (1.0, 5)
    with (
        workplace(this, tpch(this, scale), "tpch") as file,
        keeping(file, readers__threads=str(THREADS)) as keeper,
        duckdb.connect(str(keeper.published), read_only=True, config={"threads": THREADS}) as connection,
    ):
        connection.execute("SET enable_progress_bar = false")
        timings = _measure(this, keeper, connection, rounds)
    _report(this, scale, timings)


def _measure(this: Run, keeper: RunningKeeper, local: duckdb.DuckDBPyConnection, rounds: int) -> dict[int, Timing]:
    client = keeper.client()
    texts = queries()
    timings = {number: Timing() for number in texts}
    for round_number in range(rounds + 1):
        for number, sql in texts.items():
            here, answer_here = _timed(lambda sql=sql: local.execute(sql).to_arrow_table())  # type: ignore[misc]  # mypy infers no lambda with a default
            there, answer = _timed(lambda sql=sql: client.arrow(sql))  # type: ignore[misc]  # mypy infers no lambda with a default
            if round_number == 0:
                _check(number, answer, answer_here)
                continue
            timing = timings[number]
            timing.http, timing.in_process = min(timing.http, there), min(timing.in_process, here)
        this.say(f"round {round_number} of {rounds} done" if round_number else "all answers equal")
    client.close()
    return timings


def _timed(call: Callable[[], Table]) -> tuple[float, Table]:
    begun = time.perf_counter()
    table = call()
    return time.perf_counter() - begun, table


def _check(number: int, ours: Table, theirs: Table) -> None:
    """Equal as bags of rows: TPC-H's ORDER BY leaves ties open."""
    mine, other = sorted(_rows(ours), key=repr), sorted(_rows(theirs), key=repr)
    if len(mine) != len(other) or not all(map(_same_row, mine, other)):
        raise AnswersDiffer(f"query {number}: {len(mine)} rows over HTTP, {len(other)} in-process; or other values")


def _rows(table: Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _same_row(mine: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(mine) == len(other) and all(map(_same, mine, other))


def _same(mine: Any, other: Any) -> bool:
    if isinstance(mine, float) and isinstance(other, float):
        return math.isclose(mine, other, rel_tol=RELATIVE_TOLERANCE)
    return bool(mine == other)


def _report(this: Run, scale: float, timings: dict[int, Timing]) -> None:
    http, local = (1000 * sum(getattr(one, side) for one in timings.values()) for side in ("http", "in_process"))
    ratios = {number: one.http / one.in_process for number, one in timings.items()}
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    worst = max(ratios, key=lambda number: ratios[number])
    note = f"geometric mean of the 22 ratios {mean:.2f}; the worst is query {worst} with {ratios[worst]:.2f}"
    name = f"TPC-H SF{scale:g}, 22 queries over HTTP"
    this.add(Figure(name, http, "ms", "in-process", local, ratio_at_most(1.10), note))
    for number, one in timings.items():
        this.add(Figure(f"  query {number}", 1000 * one.http, "ms", "in-process", 1000 * one.in_process))


if __name__ == "__main__":
    sys.exit(run("tpch", __doc__, measure, budget_s=300, short_budget_s=90))

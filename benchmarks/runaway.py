"""Runaway queries: when the CPU is given back after the deadline, and what other clients notice meanwhile.

Each runaway is sent with a deadline of one second. The CPU time of the keeper and all its descendants is read from
/proc/<pid>/stat every few milliseconds; it is given back at the last look at which they had used more than a tenth of a
core over the 200 ms before, and were still using it. Then four clients ask small queries: first on a quiet keeper, then with runaways sent
one after the other beside them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.clients import Clients, LeanQuery, latencies_ms
from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.lean import LeanError
from benchmarks.processes import ProcessStat, cpu_used_s, tree
from benchmarks.report import Figure, at_most, percentile, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import tpch, workplace

RUNAWAYS = {
    "3-way cross join": (
        "SELECT sum(a.range * b.range + c.range) FROM range(3000000) a, range(3000000) b, range(3000000) c"
    ),
    "endless recursive CTE": (
        "WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n % 1000000 + 1 FROM endless) SELECT count(*) FROM endless"
    ),
    "60,000-character levenshtein": (
        "SELECT levenshtein(repeat(chr(97 + (n % 20)::INTEGER), 60000), repeat('zy', 30000)) FROM range(3, 4) AS r(n)"
    ),
    "200 M-element list lambda": "SELECT len(list_transform(range(n), lambda x: x * 2 + 1)) FROM range(200000000, 200000001) AS r(n)",
}
SMALL = "SELECT n_name, count(*) FROM supplier JOIN nation ON s_nationkey = n_nationkey GROUP BY ALL ORDER BY ALL"
DEADLINE_S = 1.0
LOOK_S = 0.005
WINDOW_S = 0.2
BUSY_CORES = 0.1
WATCH_S = 2.5
CLIENTS = 4
PAUSE_S = 0.005


@dataclass(frozen=True)
class Look:
    at: float
    stats: dict[int, ProcessStat]


@dataclass(frozen=True)
class Ended:
    """How one runaway ended: its outcome, when the answer came and when the CPU was free, after the deadline."""

    outcome: str
    answered_s: float
    given_back_s: float
    used_cores: float


def measure(this: Run) -> None:
    rounds, seconds = (1, 5.0) if this.short else (3, 20.0)
    with workplace(this, tpch(this, 0.1), "runaway") as file, keeping(file) as keeper:
        for name, sql in RUNAWAYS.items():
            _report(this, name, [_let_run(keeper, sql) for _ in range(rounds)])
        _others(this, keeper, seconds)


def _let_run(keeper: RunningKeeper, sql: str) -> Ended:
    """Send the runaway, and look at the process tree until well after its deadline."""
    looks: list[Look] = []
    ended: list[tuple[str, float]] = []
    sent = time.monotonic()
    thread = threading.Thread(target=lambda: ended.append((_send(keeper, sql), time.monotonic())))
    thread.start()
    while time.monotonic() < sent + DEADLINE_S + WATCH_S:
        looks.append(Look(time.monotonic(), tree(keeper.pid)))
        time.sleep(LOOK_S)
    thread.join()
    outcome, answered = ended[0]
    deadline = sent + DEADLINE_S
    used = cpu_used_s(looks[0].stats, _last_before(looks, deadline).stats) / DEADLINE_S
    return Ended(outcome, answered - deadline, free_at(looks) - deadline, used)


def _send(keeper: RunningKeeper, sql: str) -> str:
    client = keeper.client()
    try:
        client.query(sql, limits={"timeout_s": DEADLINE_S})
    except LeanError as error:
        return error.code or str(error)
    finally:
        client.close()
    return "answered"


def _last_before(looks: Sequence[Look], moment: float) -> Look:
    return max((look for look in looks if look.at <= moment), key=lambda look: look.at)


def free_at(looks: Sequence[Look]) -> float:
    """The last moment at which the tree was seen busy; the first look when it never was.

    Why the window lies before each look: what a process used is gone from the tree when it dies, and the last look
    before its death must still count as busy.
    """
    busy_until = looks[0].at
    earlier = 0
    for now in range(1, len(looks)):
        while looks[now].at - looks[earlier + 1].at >= WINDOW_S:
            earlier += 1
        used = cpu_used_s(looks[earlier].stats, looks[now].stats)
        has_ticked = cpu_used_s(looks[now - 1].stats, looks[now].stats) > 0
        if has_ticked and used > BUSY_CORES * (looks[now].at - looks[earlier].at):
            busy_until = looks[now].at
    return busy_until


def _report(this: Run, name: str, ended: Sequence[Ended]) -> None:
    worst = max(ended, key=lambda one: one.given_back_s)
    outcomes = ", ".join(sorted({one.outcome for one in ended}))
    note = f"{outcomes}; answered {worst.answered_s:+.2f} s from the deadline; {worst.used_cores:.1f} cores before it"
    this.say(f"{name}: {note}")
    this.add(Figure(f"{name}: CPU given back after the deadline", worst.given_back_s, "s", bar=at_most(0.5), note=note))


def _others(this: Run, keeper: RunningKeeper, seconds: float) -> None:
    with Clients([LeanQuery(keeper.url, keeper.key, SMALL)] * CLIENTS) as clients:
        clients.run(1.0, PAUSE_S)
        quiet = clients.run(seconds, PAUSE_S)
        with _runaways(keeper) as count:
            meanwhile = clients.run(seconds, PAUSE_S)
    errors = [error for sample in (*quiet, *meanwhile) for error in sample.errors]
    before, beside = latencies_ms(quiet), latencies_ms(meanwhile)
    note = f"{count[0]} runaways meanwhile, {len(beside)} small queries, {len(errors)} errors {errors[:1] or ''}"
    this.add(
        Figure(
            f"{CLIENTS} other clients meanwhile, p99",
            percentile(beside, 0.99),
            "ms",
            "quiet",
            percentile(before, 0.99),
            ratio_at_most(2.0),
            note,
        ),
        Figure(
            f"{CLIENTS} other clients meanwhile, p50", percentile(beside, 0.5), "ms", "quiet", percentile(before, 0.5)
        ),
    )


@contextmanager
def _runaways(keeper: RunningKeeper) -> Iterator[list[int]]:
    """Runaways one after the other until the end of the block; yields a list with their number so far."""
    count = [0]
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            for sql in RUNAWAYS.values():
                if not stop.is_set():
                    _send(keeper, sql)
                    count[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(run("runaway", __doc__, measure, budget_s=240, short_budget_s=90))

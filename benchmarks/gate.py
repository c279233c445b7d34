"""What the gate and the fence cost a query, and how soon a killed reader is replaced.

The fence is paid at a fork: forks of real readers with and without it, in turn. A query pays for the gate: the judgement of
its statement in the reader, key and right in the keeper; and for what the kernel's filter adds to each system call, which
two keepers show that answer the same query in turn, one of them without a fence. A reader is killed by SIGKILL, and a client
that asks at once notes how long it waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import duckdb
import structlog

from benchmarks.clients import Clients, LeanQuery, latencies_ms
from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.processes import tree
from benchmarks.report import Figure, percentile, ratio_at_most
from benchmarks.running import Run, run
from pondkeeper.access.authorize import Action, authorize
from pondkeeper.access.keyring import Keyring
from pondkeeper.engine.statements import reading_statement
from pondkeeper.readers.pool import ENTRY as READER
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import ChildSpec, Template

PRELOADING = "pondkeeper.engine.preloading"
SQL = "SELECT carrier, count(*) AS flights FROM flights WHERE origin = 'JFK' GROUP BY carrier ORDER BY flights DESC"
MANY = 100
BIRTH_S = 30.0


def measure(this: Run) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # Why: stdout is for the figures
    with tempfile.TemporaryDirectory(prefix="gate-", dir=this.work) as folder:
        place = Path(folder)
        asyncio.run(_forks(this, place))
        asyncio.run(_gate(this, place))
        _queries(this, place)
        _refill(this, place)


async def _forks(this: Run, place: Path) -> None:
    """From the request for a child to its first word."""
    folders = [place / "folders" / str(number) for number in range(MANY)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    fences = {
        "none": Fence(),
        "one database": Fence((str(folders[0]),), (str(place),)),
        "100 databases": Fence(tuple(map(str, folders)), (str(place),)),
    }
    templates = {name: Template([PRELOADING, READER], "off" if name == "none" else "strict") for name in fences}
    took: dict[str, list[float]] = {name: [] for name in fences}
    try:
        for _ in range(40 if this.short else 300):
            for name, template in templates.items():
                took[name].append(await _fork(template, fences[name], place))
    finally:
        for template in templates.values():
            await template.stop()
    without = percentile(took.pop("none")[1:], 0.5)
    for name, times in took.items():
        middle = percentile(times[1:], 0.5)
        note = f"{1000 * (middle - without):.0f} µs more than without, once in a reader's life"
        this.add(Figure(f"fork to ready, fenced, {name}", middle, "ms", "no fence", without, note=note))


async def _fork(template: Template, fence: Fence, place: Path) -> float:
    config = {"temp_directory": str(place), "temp_limit_bytes": 10**9}
    began = time.perf_counter()
    child = await template.spawn(ChildSpec("reader", READER, config, fence=fence))
    await child.next_frame()
    took_ms = 1000 * (time.perf_counter() - began)
    child.close()
    await asyncio.shield(child.exited)
    return took_ms


async def _gate(this: Run, place: Path) -> None:
    """The parts of the gate by themselves, beside the parser's own work that a query needs anyway."""
    rounds = 500 if this.short else 5000
    with duckdb.connect(":memory:") as connection:
        bare = _per_call_us(lambda: connection.extract_statements(SQL), rounds)
        judged = _per_call_us(lambda: reading_statement(connection, SQL), rounds)
    note = "once per statement and snapshot: a reader knows it again"
    this.add(Figure("judging a statement", judged, "µs", "DuckDB's parser", bare, note=note))
    keys = await Keyring.open(place / "control.db")
    try:
        created = await keys.create(f"benchmark {time.time_ns()}", "reader", ("flights",))
        began = time.perf_counter()
        for _ in range(rounds):
            key = await keys.authenticate(created.token)
            authorize(key, Action.QUERY, "flights")
        this.add(Figure("key and right", 1e6 * (time.perf_counter() - began) / rounds, "µs"))
    finally:
        await keys.close()


def _per_call_us(call: Callable[[], object], rounds: int) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        call()
    return 1e6 * (time.perf_counter() - began) / rounds


def _queries(this: Run, place: Path) -> None:
    """`SELECT 1` through two keepers in turn."""
    seconds, rounds = 0.3, (20 if this.short else 100)  # Why short turns: a burst of other work hits both
    with ExitStack() as stack:
        clients = {}
        for mode in ("strict", "off"):
            keeper = stack.enter_context(_keeper(place, mode, 1))
            clients[mode] = stack.enter_context(Clients([LeanQuery(keeper.url, keeper.key, "SELECT 1")]))
            clients[mode].run(seconds)
        took: dict[str, list[float]] = {mode: [] for mode in clients}
        for _ in range(rounds):
            for mode, client in clients.items():
                took[mode] += latencies_ms(client.run(seconds))
    for share in (0.5, 0.99):
        fenced, bare = (1000 * percentile(took[mode], share) for mode in ("strict", "off"))
        bar = ratio_at_most(1.1) if share == 0.5 else None
        this.add(Figure(f"SELECT 1 behind the fence, p{100 * share:.0f}", fenced, "µs", "no fence", bare, bar))


def _keeper(place: Path, mode: str, readers: int) -> AbstractContextManager[RunningKeeper]:
    folder = Path(tempfile.mkdtemp(prefix=f"keeper-{mode}-", dir=place))
    file = folder / "pond.duckdb"
    duckdb.connect(str(file)).close()
    return keeping(file, fence__mode=mode, readers__count=str(readers))


def _refill(this: Run, place: Path) -> None:
    """Kill the only reader, ask at once."""
    took = []
    with _keeper(place, "strict", 1) as keeper:
        client = keeper.client()
        try:
            client.query("SELECT 1")
            for _ in range(25 if this.short else 250):
                os.kill(_reader_of(keeper), signal.SIGKILL)
                began = time.perf_counter()
                client.query("SELECT 1")
                took.append(1000 * (time.perf_counter() - began))
        finally:
            client.close()
    for share in (0.5, 0.99):
        note = "the kill, the fork, the opening of the snapshot and the query" if share == 0.5 else ""
        this.add(
            Figure(
                f"an answer after the only reader was killed, p{100 * share:.0f}",
                percentile(took, share),
                "ms",
                note=note,
            )
        )


def _reader_of(keeper: RunningKeeper) -> int:
    give_up_at = time.monotonic() + BIRTH_S
    while time.monotonic() < give_up_at:
        for pid, stat in tree(keeper.pid).items():
            if stat.state != "Z" and _name_of(pid) == "pond-reader":
                return pid
        time.sleep(0.001)
    raise LookupError("the keeper has no reader")


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended meanwhile
        return ""


if __name__ == "__main__":
    sys.exit(run("gate", __doc__, measure, budget_s=300, short_budget_s=90))

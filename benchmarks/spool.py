"""One-row ingests accepted per second while a program has the lease, beside one-row inserts committed without one.

Both over HTTP with the same clients, in one run and by turns. What is accepted is fsynced before its answer. When the lease
is given back, everything that was accepted is applied; how fast, and that nothing is missing, is the last figure.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import duckdb

from benchmarks.crowd import HttpCrowd, Tally, drive
from benchmarks.keeper import RunningKeeper, environment, keeping
from benchmarks.report import Figure, ratio_at_least
from benchmarks.running import Run, run

TABLE = "CREATE TABLE t (k INTEGER, name VARCHAR, x DOUBLE)"
INSERT, ROW = "INSERT INTO t VALUES (?, ?, ?)", [1, "a name", 1.5]
BODY = json.dumps({"k": 1, "name": "a name", "x": 1.5}).encode() + b"\n"
CLIENTS = (1, 8, 64)
PROCESSES = 2
DRAINED_WITHIN_S = 120.0
_CONTEXT = mp.get_context("spawn")


@dataclass(frozen=True)
class RowsCrowd:
    """So many connections to a keeper, each sending one row after the other with wait=accepted."""

    url: str
    key: str
    count: int

    def run(self, seconds: float) -> Tally:
        parts = urlsplit(self.url)
        head = "POST /v1/databases/spool/tables/t/rows?wait=accepted HTTP/1.1\r\n"
        head += f"Host: {parts.netloc}\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/x-ndjson\r\nContent-Length: {len(BODY)}\r\n\r\n"
        message = head.encode() + BODY
        with selectors.DefaultSelector() as ready:
            for _ in range(self.count):
                connection = socket.create_connection((parts.hostname or "", parts.port or 80))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(connection, selectors.EVENT_READ)
                connection.sendall(message)
            tally = drive(ready, lambda: message, seconds, status=202)
            for key in list(ready.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
        return tally


def measure(this: Run) -> None:
    turn_s, turns = (1.0, 1) if this.short else (3.0, 5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=this.work)))
        file = folder / "spool.duckdb"
        with duckdb.connect(str(file)) as connection:
            connection.execute(TABLE)
        keeper = stack.enter_context(keeping(file))
        pools = [stack.enter_context(_CONTEXT.Pool(1)) for _ in range(PROCESSES)]
        drained: list[tuple[int, float]] = []
        for clients in CLIENTS:
            this.say(f"{clients} clients")
            committed, accepted = _rates(pools, keeper, file, clients, (turn_s, turns), drained)
            bar = ratio_at_least(1.0) if clients == max(CLIENTS) else None
            name = f"one-row ingests accepted while the lease is held, {clients} clients"
            this.add(Figure(name, accepted, "/s", "committed, no lease", committed, bar))
        count, elapsed_s = max(drained)
        this.add(Figure("accepted ingests applied after the lease", count / elapsed_s, "/s", note=f"{count} in {elapsed_s:.1f} s"))


def _rates(
    pools: list[Any], keeper: RunningKeeper, file: Path, clients: int, plan: tuple[float, int], drained: list[tuple[int, float]]
) -> tuple[float, float]:
    """The medians of inserts committed and ingests accepted, by turns."""
    turn_s, turns = plan
    committed, accepted = [], []
    for turn in range(turns + 1):
        crowds = [HttpCrowd(keeper.url, keeper.key, share, INSERT, list(ROW)) for share in _shares(clients)]
        ours = _together(pools, crowds, turn_s)
        with _lease_held(file):
            rows = _together(pools, [RowsCrowd(keeper.url, keeper.key, share) for share in _shares(clients)], turn_s)
            waiting = _spool(keeper)["waiting"]
            if waiting < rows.done:
                raise RuntimeError(f"{rows.done} were accepted, and {waiting} wait")
            released_at = time.perf_counter()
        drained.append((waiting, _drained_after_s(keeper, released_at)))
        if turn:  # the first one warms up
            committed.append(ours.rate)
            accepted.append(rows.rate)
    return median(committed), median(accepted)


def _shares(clients: int) -> list[int]:
    return [clients] if clients < PROCESSES else [clients // PROCESSES] * PROCESSES


def _together(pools: list[Any], crowds: list[Any], seconds: float) -> Tally:
    running = [pool.apply_async(_run, (crowd, seconds)) for pool, crowd in zip(pools, crowds, strict=False)]
    tallies: list[Tally] = [each.get() for each in running]
    if failed := sum(tally.failed for tally in tallies):
        raise RuntimeError(f"{failed} writes failed: {next(tally.error for tally in tallies if tally.error)}")
    return Tally(sum(tally.done for tally in tallies), 0, rate=sum(tally.rate for tally in tallies))


def _run(crowd: RowsCrowd | HttpCrowd, seconds: float) -> Tally:
    return crowd.run(seconds)


@contextmanager
def _lease_held(file: Path) -> Iterator[None]:
    """`pondkeeper run` has the lease."""
    command = [sys.executable, "-m", "pondkeeper.cli.main", "run", "--reason", "benchmark", "--"]
    program = [sys.executable, "-c", "print('held', flush=True); input()"]
    holder = subprocess.Popen(
        [*command, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=file.parent,
        env=environment({}),
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            raise RuntimeError("the lease was not to be had")
        yield
    finally:
        holder.communicate("\n")


def _spool(keeper: RunningKeeper) -> dict[str, Any]:
    from pondkeeper.client import Client

    with Client(keeper.url, keeper.key) as client:
        return dict(client.status(keeper.name)["spool"])


def _drained_after_s(keeper: RunningKeeper, released_at: float) -> float:
    """How long after the lease was given back nothing waited any more; with the end of the program that had it."""
    while (elapsed_s := time.perf_counter() - released_at) < DRAINED_WITHIN_S:
        spool = _spool(keeper)
        if spool["refused"]:
            raise RuntimeError("an accepted ingest was refused")
        if not spool["waiting"]:
            return elapsed_s
        time.sleep(0.05)
    raise RuntimeError("what was accepted was not applied in time")


if __name__ == "__main__":
    sys.exit(run("spool", __doc__, measure, budget_s=240, short_budget_s=90))

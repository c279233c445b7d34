"""Ten million rows of lineitem as Parquet, into an empty table: over HTTP, and in-process from the same file.

Both end when the rows are committed. The table is made anew for each round, and both orders are measured. What the keeper
needs in between (taking the body in, staging it without the database's file, the turn that holds the file) is shown too.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.report import Figure, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import lineitem
from pondkeeper.client import Client

THREADS = 2
BAR = 1.3


@dataclass(frozen=True)
class Round:
    """One ingest: as its client saw it, and as the keeper answers."""

    seconds: float
    answer: dict[str, Any]


def parquet_of(this: Run, rows: int) -> tuple[Path, str]:
    """A Parquet file of that many rows, made once, and the definition of its table."""
    source = lineitem(this, rows)
    file = this.work / f"lineitem-{rows}.parquet"
    with duckdb.connect(str(source), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        if not file.exists():
            this.say("writing the Parquet file")
            begun = file.with_suffix(".making")
            connection.execute(f"COPY lineitem TO '{begun}' (FORMAT parquet, COMPRESSION snappy)")
            begun.replace(file)
        [(definition,)] = connection.execute("SELECT sql FROM duckdb_tables() WHERE table_name = 'lineitem'").fetchall()
    return file, str(definition)


def in_process(this: Run, file: Path, definition: str) -> float:
    """INSERT … SELECT FROM read_parquet into a new database: seconds to the commit."""
    database = this.work / "in-process" / "peer.duckdb"
    shutil.rmtree(database.parent, ignore_errors=True)
    database.parent.mkdir(parents=True)
    try:
        with duckdb.connect(str(database), config={"threads": THREADS}) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(definition)
            begun = time.perf_counter()
            connection.execute(f"INSERT INTO lineitem SELECT * FROM read_parquet('{file}')")
            return time.perf_counter() - begun
    finally:
        shutil.rmtree(database.parent, ignore_errors=True)


def over_http(keeper: RunningKeeper, file: Path, definition: str, rows: int) -> Round:
    """The whole file in one request, into a table that has just been made."""
    with Client(keeper.url, keeper.key) as client:
        with suppress(Exception):
            client.execute("DROP TABLE lineitem", timeout_s=60)
        made = client.execute(definition)
        client.query("SELECT 1", at_least=made.version, timeout_s=60)
        begun = time.perf_counter()
        outcome = client.ingest("lineitem", file)
        seconds = time.perf_counter() - begun
        if outcome.rows != rows:
            raise RuntimeError(f"{outcome.rows} rows were taken of {rows}")
        client.query("SELECT count(*) FROM lineitem", at_least=outcome.version, timeout_s=120)
    return Round(seconds, {"staging_ms": outcome.staging_ms, "hold_ms": outcome.hold_ms})


def measure(this: Run) -> None:
    rows, rounds = (1_000_000, 3) if this.short else (10_000_000, 3)
    file, definition = parquet_of(this, rows)
    folder = this.work / "ingest"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours: list[Round] = []
    theirs: list[float] = []
    try:
        with keeping(folder / "w.duckdb", writer__threads=str(THREADS), ingest__threads=str(THREADS)) as keeper:
            for number in range(rounds):
                if number % 2:
                    theirs.append(in_process(this, file, definition))
                ours.append(over_http(keeper, file, definition, rows))
                if not number % 2:
                    theirs.append(in_process(this, file, definition))
                this.say(f"over HTTP {ours[-1].seconds:.2f} s {ours[-1].answer}, in-process {theirs[-1]:.2f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _report(this, rows, ours, theirs)


def _report(this: Run, rows: int, ours: list[Round], theirs: list[float]) -> None:
    seconds = median(each.seconds for each in ours)
    hold_s = median(each.answer["hold_ms"] for each in ours) / 1000
    staging_s = median(each.answer["staging_ms"] for each in ours) / 1000
    name = f"ingest of {rows:,} rows of Parquet over HTTP"
    this.add(
        Figure(name, seconds, "s", "INSERT … SELECT FROM read_parquet", median(theirs), ratio_at_most(BAR)),
        Figure("… of it the file is held", hold_s, "s", "whole ingest", seconds),
        Figure("… of it staging, without the file", staging_s, "s", "whole ingest", seconds),
        Figure("rows per second over HTTP", rows / seconds, "1/s"),
    )


if __name__ == "__main__":
    sys.exit(run("ingest", str(__doc__), measure, budget_s=400, short_budget_s=90))

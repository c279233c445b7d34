"""From a commit at the primary to a reader of its replica that sees it, on one machine through the network stack, at 1 GB.

One client commits one row at a time, and asks the replica for it from the moment of the acknowledgement on, with `at_least`:
the query waits there for the version of the commit. Between commits it rests for a random time. Before that, how long the first
copy takes, and what `cp` takes for the same file.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.keeper import RunningKeeper, following, keeping
from benchmarks.lean import LeanClient
from benchmarks.report import Figure, at_most, percentile
from benchmarks.running import Run, run
from benchmarks.warehouse import sized, workplace

REST_S = (0.02, 0.12)
WARM_UP_COMMITS = 5
FIRST_COPY_S = 300.0
LOOK = "SELECT count(*) FROM event WHERE id = ?"
P50_BAR, P99_BAR = at_most(1000), at_most(3000)


def measure(this: Run) -> None:
    gigabytes, commits = (0.1, 15) if this.short else (1.0, 200)
    source = sized(this, gigabytes)
    with workplace(this, source, "followed") as file, keeping(file) as primary:
        copy_s = _cp_s(file)
        began_at = time.perf_counter()
        with following(file.parent / "replica" / file.name, primary) as replica:
            _follow(replica, primary.client().query("SELECT 1")["version"])
            first_s = time.perf_counter() - began_at
            this.add(Figure(f"{gigabytes:g} GB: start and first copy", first_s, "s", "cp", copy_s))
            waiting_ms, fetched = _visible(this, primary.client(), replica, commits)
    bars = (None, None) if this.short else (P50_BAR, P99_BAR)
    name = f"{gigabytes:g} GB: commit to visible on a replica"
    this.add(
        Figure(f"{name}, p50", percentile(waiting_ms, 0.5), "ms", bar=bars[0]),
        Figure(f"{name}, p99", percentile(waiting_ms, 0.99), "ms", bar=bars[1]),
        Figure(f"{gigabytes:g} GB: fetched per version, p50", percentile(fetched, 0.5) / 1000, "KB"),
    )


def _cp_s(file: Path) -> float:
    copy = file.with_suffix(".copy")
    began_at = time.perf_counter()
    subprocess.run(["cp", str(file), str(copy)], check=True)
    taken_s = time.perf_counter() - began_at
    copy.unlink()
    return taken_s


def _follow(replica: RunningKeeper, version: int) -> None:
    """Wait until the replica has that version."""
    give_up_at = time.monotonic() + FIRST_COPY_S
    while (_status(replica.client())["version"] or 0) < version:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the replica has no version {version} after {FIRST_COPY_S:g} s")
        time.sleep(0.05)


def _status(client: LeanClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/databases")["databases"][0]
    return found


def _visible(this: Run, writer: LeanClient, replica: RunningKeeper, commits: int) -> tuple[list[float], list[float]]:
    """Milliseconds from acknowledgement to sight, and bytes fetched, for each commit."""
    reader = replica.client()
    waiting_ms: list[float] = []
    fetched: list[float] = []
    for number in range(commits + WARM_UP_COMMITS):
        this.say(f"commit {number}") if number % 50 == 0 else None
        time.sleep(random.uniform(*REST_S))
        version = writer.execute("INSERT INTO event (id, note) VALUES (?, 'a row')", parameters=[10_000_000 + number])["version"]
        acknowledged = time.perf_counter()
        answer = reader.query(LOOK, parameters=[10_000_000 + number], at_least=version)
        if number >= WARM_UP_COMMITS:
            waiting_ms.append(1000 * (time.perf_counter() - acknowledged))
            fetched.append(float(_status(reader)["snapshot"]["bytes_copied"]))
        if answer["rows"] != [[1]]:
            raise AssertionError(f"the row of version {version} is not in the answer of version {answer['version']}")
    return waiting_ms, fetched


if __name__ == "__main__":
    sys.exit(run("replica", __doc__, measure, budget_s=300, short_budget_s=60))

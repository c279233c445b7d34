"""From a commit to a reader that sees it, over HTTP, on databases of 0.1, 1 and 10 GB.

One client commits one row at a time and then, from the moment when its commit is acknowledged, asks a reader for that
row: once with `at_least` (the query waits for the version of the commit), and once without (it asks again every
millisecond until the row is there). Between commits it rests for a random time, so that no rhythm of the keeper is met by
chance. What each publish copied is read from the snapshot's manifest.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.lean import LeanClient
from benchmarks.report import Bar, Figure, at_most, percentile, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import sized, workplace

BLOCK_BYTES = 262_144
INSERT = "INSERT INTO event (id, note) VALUES (?, 'a row of a few bytes')"
LOOK = "SELECT count(*) FROM event WHERE id = ?"
REST_S = (0.02, 0.12)
POLL_S = 0.001
SIZES_GB = [0.1, 1.0, 10.0]
LEND_FROM_GB = 5.0
WARM_UP_S = 180.0
BARRED_GB = 1.0
P50_BAR, P99_BAR = at_most(50), at_most(200)
GROWTH_BAR = ratio_at_most(3.0)


class NeverVisible(Exception):
    """A committed row did not appear in a reader."""


@dataclass
class Measured:
    """What one database showed: milliseconds, and bytes copied per publish."""

    gigabytes: float
    commit_ms: list[float] = field(default_factory=list)
    waiting_ms: list[float] = field(default_factory=list)
    polling_ms: list[float] = field(default_factory=list)
    idle_ms: list[float] = field(default_factory=list)
    copied_bytes: list[float] = field(default_factory=list)


def measure(this: Run) -> None:
    sizes, commits, idle_rounds = ([0.1], 25, 2) if this.short else (SIZES_GB, 200, 10)
    results: dict[float, Measured] = {}
    for gigabytes in sizes:
        needed = gigabytes * 1e9 * 6
        if shutil.disk_usage(this.work).free < needed:
            this.say(f"skipped {gigabytes:g} GB: needs {needed / 1e9:.0f} GB of free disk")
            continue
        results[gigabytes] = _one_size(this, gigabytes, commits, idle_rounds)
        _report(this, results[gigabytes])
    smallest, largest = min(results), max(results)
    if largest > smallest:
        small, large = median(results[smallest].waiting_ms), median(results[largest].waiting_ms)
        name = f"growth of the p50 from {smallest:g} to {largest:g} GB"
        this.add(Figure(name, large, "ms", f"{smallest:g} GB", small, GROWTH_BAR))


def _one_size(this: Run, gigabytes: float, commits: int, idle_rounds: int) -> Measured:
    measured = Measured(gigabytes)
    big = gigabytes >= LEND_FROM_GB
    source = sized(this, gigabytes)
    with (
        workplace(this, source, "fresh", lend=big) as file,
        keeping(file, snapshots__keep="1" if big else "3") as keeper,
    ):
        writer, reader = keeper.client(), keeper.client()
        commit = _committer(writer, measured)
        _warm_up(reader, commit()[0])
        for number in range(commits + 5):
            this.say(f"{gigabytes:g} GB: commit {number}") if number % 50 == 0 else None
            _look_waiting(reader, *commit(), measured.waiting_ms)
            _look_polling(reader, *commit(), measured.polling_ms)
            _note_copied(keeper, measured)
            if number == 4:
                _forget_warming_up(measured)
        for _ in range(idle_rounds):
            time.sleep(2.5)
            _look_waiting(reader, *commit(), measured.idle_ms)
        writer.execute("DELETE FROM event")
    return measured


def _warm_up(reader: LeanClient, row: int) -> None:
    """Wait for the second copy of the whole file, which the versions from then on are made of. It takes what a disk takes."""
    give_up_at = time.monotonic() + WARM_UP_S
    while reader.query(LOOK, parameters=[row])["rows"] != [[1]]:
        if time.monotonic() > give_up_at:
            raise NeverVisible(f"the first row is not visible after {WARM_UP_S:g} s")
        time.sleep(0.1)


def _forget_warming_up(measured: Measured) -> None:
    for values in (measured.commit_ms, measured.waiting_ms, measured.polling_ms, measured.copied_bytes):
        values.clear()


def _committer(writer: LeanClient, measured: Measured) -> Callable[[], tuple[int, int, float]]:
    """A function that rests, commits the next row, and returns its id, its version and when it was acknowledged."""
    first = writer.query("SELECT coalesce(max(id), 0) FROM event")["rows"][0][0]
    count = 0

    def commit() -> tuple[int, int, float]:
        nonlocal count
        count += 1
        time.sleep(random.uniform(*REST_S))
        begun = time.perf_counter()
        outcome: dict[str, Any] = writer.execute(INSERT, parameters=[first + count])
        acknowledged = time.perf_counter()
        measured.commit_ms.append(1000 * (acknowledged - begun))
        return first + count, outcome["version"], acknowledged

    return commit


def _look_waiting(reader: LeanClient, row: int, version: int, acknowledged: float, into: list[float]) -> None:
    answer = reader.query(LOOK, parameters=[row], at_least=version)
    into.append(1000 * (time.perf_counter() - acknowledged))
    if answer["rows"] != [[1]] or answer["version"] < version:
        raise NeverVisible(f"row {row} of version {version} is not in the answer of version {answer['version']}")


def _look_polling(reader: LeanClient, row: int, version: int, acknowledged: float, into: list[float]) -> None:
    while reader.query(LOOK, parameters=[row])["rows"] != [[1]]:
        if time.perf_counter() - acknowledged > 30:
            raise NeverVisible(f"row {row} of version {version} is not visible after 30 s")
        time.sleep(POLL_S)
    into.append(1000 * (time.perf_counter() - acknowledged))


def _note_copied(keeper: RunningKeeper, measured: Measured) -> None:
    newest = max(keeper.snapshots.glob("*/manifest.json"))
    try:
        manifest = json.loads(newest.read_text())
    except FileNotFoundError:
        return  # retired meanwhile
    measured.copied_bytes.append(manifest["blocks_copied"] * BLOCK_BYTES)


def _report(this: Run, measured: Measured) -> None:
    size = f"{measured.gigabytes:g} GB"
    barred = measured.gigabytes == BARRED_GB
    commit = (
        f"the commit itself: p50 {median(measured.commit_ms):.1f} ms, p99 {percentile(measured.commit_ms, 0.99):.1f} ms"
    )
    _pair(this, f"{size}: commit to visible, at_least", measured.waiting_ms, barred, commit)
    _pair(this, f"{size}: commit to visible, polling", measured.polling_ms, barred, "")
    idle = percentile(measured.idle_ms, 0.5)
    this.add(
        Figure(f"{size}: the same after 2.5 s of idleness, p50", idle, "ms"),
        Figure(f"{size}: copied per publish", median(measured.copied_bytes) / 1e6, "MB"),
    )


def _pair(this: Run, name: str, values: list[float], barred: bool, note: str) -> None:
    bars: tuple[Bar | None, Bar | None] = (P50_BAR, P99_BAR) if barred else (None, None)
    this.add(
        Figure(f"{name}, p50", percentile(values, 0.5), "ms", bar=bars[0], note=note),
        Figure(f"{name}, p99", percentile(values, 0.99), "ms", bar=bars[1]),
    )


if __name__ == "__main__":
    sys.exit(run("freshness", __doc__, measure, budget_s=900, short_budget_s=90))

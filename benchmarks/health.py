"""`/health/live` while every reader is busy and a real dbt run holds the lease.

The database is the flights warehouse of `examples/flights`; beside as many clients as there are readers, each with
queries of about a second, `pondkeeper run -- dbt build` runs over and over. One client asks for /health/live and notes
each answer's time: first on the quiet keeper, then under all that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from benchmarks.clients import Clients, LeanGet, LeanQuery, Sample, latencies_ms
from benchmarks.keeper import RunningKeeper, environment, keeping
from benchmarks.report import Figure, at_most, percentile
from benchmarks.running import Run, run
from benchmarks.warehouse import workplace

FLIGHTS = Path(__file__).parents[1] / "examples" / "flights"
READERS = 4
PAUSE_S = 0.005
HEAVY = (
    "SELECT origin, dest, quantile_cont(arr_delay, [0.1, 0.5, 0.9]), count(DISTINCT tailnum) "
    "FROM flights, range(12) GROUP BY ALL ORDER BY ALL"
)


class WarehouseMissing(Exception):
    """The flights warehouse could not be built."""


def measure(this: Run) -> None:
    seconds = 6.0 if this.short else 40.0
    with workplace(this, _flights(this), "flights") as file, keeping(file, readers__count=str(READERS)) as keeper:
        probe, load = LeanGet(keeper.url, keeper.key, "/health/live"), LeanQuery(keeper.url, keeper.key, HEAVY)
        with Clients([probe]) as probes, Clients([load] * READERS) as heavy:
            probes.run(0.5, PAUSE_S)
            quiet = probes.run(seconds / 2, PAUSE_S)
            with _dbt_runs(this, keeper, file) as builds:
                heavy.begin(seconds + 1.0)
                busy = probes.run(seconds, PAUSE_S)
                loads = heavy.collect()
    _report(this, quiet, busy, loads, builds)


def _flights(this: Run) -> Path:
    file = this.work / "flights.duckdb"
    if not file.exists():
        this.say("building the flights warehouse")
        built = subprocess.run([sys.executable, str(FLIGHTS / "build.py"), str(file)], check=False, stdout=sys.stderr)
        if built.returncode or not file.exists():
            raise WarehouseMissing(f"{FLIGHTS / 'build.py'} ended with {built.returncode}")
    with duckdb.connect(str(file), read_only=True) as connection:
        row = connection.execute("SELECT count(*) FROM flights").fetchone()
        this.say(f"flights warehouse with {row[0] if row else 0:,} flights")
    return file


def _dbt_command(project: Path) -> list[str]:
    dbt = shutil.which("dbt", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if dbt is None:
        raise WarehouseMissing("dbt is not installed: pip install dbt-duckdb")
    return [dbt, "build", "--project-dir", str(project), "--profiles-dir", str(project)]


@contextmanager
def _dbt_runs(this: Run, keeper: RunningKeeper, file: Path) -> Iterator[list[int]]:
    """dbt builds under `pondkeeper run`, one after the other; yields the list of their exit codes so far."""
    project = file.parent / "dbt"
    shutil.copytree(FLIGHTS / "dbt", project)
    own = [sys.executable, "-m", "pondkeeper.cli.main", "--home", str(keeper.home), "run", "--"]
    codes: list[int] = []
    stop = threading.Event()

    def build() -> None:
        while not stop.is_set():
            with (file.parent / "dbt.log").open("ab") as log:
                ended = subprocess.run(
                    [*own, *_dbt_command(project)],
                    cwd=file.parent,
                    env=environment({}),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,
                )
            codes.append(ended.returncode)
            if ended.returncode:
                this.say(f"dbt ended with {ended.returncode}: {(file.parent / 'dbt.log').read_text()[-1000:]}")
                return

    thread = threading.Thread(target=build)
    thread.start()
    try:
        yield codes
    finally:
        stop.set()
        thread.join()


def _report(this: Run, quiet: list[Sample], busy: list[Sample], loads: list[Sample], builds: list[int]) -> None:
    before, beside, heavy = latencies_ms(quiet), latencies_ms(busy), latencies_ms(loads)
    errors = [error for sample in (*quiet, *busy, *loads) for error in sample.errors]
    failed = sum(1 for code in builds if code)
    note = (
        f"meanwhile {len(heavy)} heavy queries on {READERS} readers (p50 {percentile(heavy, 0.5):.0f} ms), {len(builds)} dbt"
        f" builds, {failed} of them failed; {len(beside)} looks, {len(errors)} errors {errors[:1] or ''}"
    )
    bar = at_most(25)
    this.add(
        Figure("/health/live, p99", percentile(beside, 0.99), "ms", "quiet", percentile(before, 0.99), bar, note),
        Figure("/health/live, p50", percentile(beside, 0.5), "ms", "quiet", percentile(before, 0.5)),
        Figure("/health/live, slowest", max(beside), "ms", "quiet", max(before)),
    )


if __name__ == "__main__":
    sys.exit(run("health", __doc__, measure, budget_s=180, short_budget_s=90))

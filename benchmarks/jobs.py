"""What jobs cost: a million rows out of PostgreSQL, changes as they happen, 2,000 files, and a command that does nothing.

The source is a PostgreSQL of the benchmark's own (Debian's server), on the same two cores. Beside each figure stands what one
would do without us: DuckDB's own `postgres` scanner making a table in a file, and a loop over the same files with httpx.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb

from benchmarks.extensions import load
from benchmarks.keeper import RunningKeeper, keeping
from benchmarks.report import Figure, at_most, percentile, ratio_at_most
from benchmarks.running import Run, run
from pondkeeper.client import Client
from tests.support.postgres import PostgresServer
from tests.support.processes import tree

COLUMNS = {
    "id": ("bigint primary key", "i"),
    "customer": ("integer", "i % 50000"),
    "product": ("integer", "i % 997"),
    "quantity": ("smallint", "i % 50"),
    "price": ("numeric(12,2)", "(i % 100000) / 100.0"),
    "discount": ("double precision", "(i % 100) / 7.0"),
    "paid": ("boolean", "i % 3 = 0"),
    "ordered_on": ("date", "date '2020-01-01' + (i % 2000)::int"),
    "ordered_at": ("timestamp", "timestamp '2020-01-01' + i * interval '31 seconds'"),
    "changed_at": ("timestamptz", "timestamptz '2020-01-01 00:00:00Z' + i * interval '37 seconds'"),
    "status": ("text", "(array['new', 'paid', 'sent', 'back'])[1 + i % 4]"),
    "city": ("varchar(40)", "'city ' || i % 1000"),
    "street": ("text", "'street of the number ' || i % 30000"),
    "mail": ("text", "md5(i::text) || '@example.com'"),
    "note": ("text", "case when i % 5 = 0 then 'a note of some words about the order ' || i end"),
    "weight": ("real", "i % 300 / 10.0"),
    "reference": ("uuid", "md5(i::text)::uuid"),
    "carrier": ("text", "'carrier ' || i % 12"),
    "tracking": ("bigint", "i::bigint * 7919"),
    "attempts": ("integer", "i % 5"),
}
FILE_BYTES, WORKERS = 20_000, 16
REFRESH_BAR, HOLD_BAR, DOWNLOAD_BAR = ratio_at_most(1.3), ratio_at_most(0.25), ratio_at_most(1.15)
LAG_BAR, COMMAND_BAR = at_most(5.0), at_most(0.5)
LEAST_HELD = (
    "so long the file is held at least, whoever brings the rows; where it is more than 1.3 × 0.25 of the scanner's time, no run meets both bars"
)
CHANGES_PER_S = 1000
RUN_TIMEOUT_S = 600.0

LOOP = """
import sys, pathlib
from concurrent.futures import ThreadPoolExecutor
import httpx
url, folder, count, workers = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with httpx.Client(limits=httpx.Limits(max_connections=workers)) as client:
    def fetch(number):
        answer = client.get(f"{url}/{number}.bin")
        answer.raise_for_status()
        (folder / f"{number}.bin").write_bytes(answer.content)
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(fetch, range(count)))
"""
SERVER = """
import sys, uvicorn
body = bytes(range(256)) * 79
body = body[:int(sys.argv[2])]
async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(body)).encode()), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off")
"""


@dataclass(frozen=True)
class Sizes:
    """How many, how often."""

    rows: int
    refreshes: int
    changes_s: float
    files: int
    downloads: int
    commands: int


FULL = Sizes(1_000_000, 5, 40.0, 2_000, 5, 30)
SHORT = Sizes(100_000, 2, 6.0, 300, 2, 5)


def measure(this: Run) -> None:
    sizes = SHORT if this.short else FULL
    _commands(this, sizes)
    _downloads(this, sizes)
    with PostgresServer(durable=True) as source:
        _refreshes(this, source, sizes)
        _changes(this, source, sizes)


@contextmanager
def _pond(this: Run, name: str, jobs: str) -> Iterator[tuple[RunningKeeper, Client]]:
    """A keeper on an empty database with these jobs."""
    folder = Path(mkdtemp(prefix=f"jobs-{name}-", dir=this.work))
    (folder / ".pondkeeper").mkdir()
    (folder / ".pondkeeper" / "pondkeeper.toml").write_text(jobs)
    with keeping(folder / "pond.duckdb") as keeper, Client(keeper.url, key=keeper.key, timeout_s=RUN_TIMEOUT_S) as client:
        yield keeper, client
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def _ended(client: Client, job: str) -> dict[str, Any]:
    """One run, from the trigger to its end."""
    return client.jobs.wait(client.jobs.run(job)["run_id"], timeout_s=RUN_TIMEOUT_S)


def _took_s(status: dict[str, Any]) -> float:
    """From the trigger to the end, by the keeper's clock."""
    moments = [dt.datetime.fromisoformat(status[name]) for name in ("created_at", "finished_at")]
    return (moments[1] - moments[0]).total_seconds()


# A command that does nothing


def _commands(this: Run, sizes: Sizes) -> None:
    this.say(f"{sizes.commands} runs of a command that does nothing")
    with _pond(this, "command", '[jobs.nothing]\nkind = "command"\ncommand = ["true"]\n') as (_, client):
        _ended(client, "nothing")
        seconds = [_took_s(_ended(client, "nothing")) for _ in range(sizes.commands)]
    this.add(
        Figure("a command that does nothing, trigger to done, p50", median(seconds), "s", bar=COMMAND_BAR),
        Figure("a command that does nothing, trigger to done, slowest", max(seconds), "s", bar=COMMAND_BAR),
    )


# Files


def _downloads(this: Run, sizes: Sizes) -> None:
    with _file_server() as url:
        jobs = (
            f"[jobs.files]\nkind = 'download'\nfolder = 'files'\nworkers = {WORKERS}\nexisting = 'replace'\n"
            f"query = \"SELECT '{url}/' || range || '.bin' AS url FROM range({sizes.files})\"\n"
        )
        new, replaced, theirs = [], [], []
        with _pond(this, "download", jobs) as (keeper, client):
            folder = keeper.home.parent
            for turn in range(sizes.downloads + 1):
                this.say(f"turn {turn}: {sizes.files:,} files by the job, by the job once more, and by a loop")
                new_s, replaced_s = _took_s(_ended(client, "files")), _took_s(_ended(client, "files"))
                (folder / "files").rename(folder / f"files-{turn}")
                loop_s = _looped_s(url, folder / f"loop-{turn}", sizes)
                if turn:  # the first turn warms both
                    new.append(new_s)
                    replaced.append(replaced_s)
                    theirs.append(loop_s)
    name = f"{sizes.files:,} files of {FILE_BYTES // 1000} KB, {WORKERS} workers"
    note = "new files on both sides, from the trigger to `done` and from the start of the process to its end"
    this.add(
        Figure(name, median(new), "s", "httpx loop", median(theirs), DOWNLOAD_BAR, note),
        Figure(f"… in the place of {sizes.files:,} files that are there", median(replaced), "s", "loop, new files", median(theirs)),
    )


def _looped_s(url: str, folder: Path, sizes: Sizes) -> float:
    folder.mkdir()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LOOP, url, str(folder), str(sizes.files), str(WORKERS)], check=True)
    return time.perf_counter() - began


@contextmanager
def _file_server() -> Iterator[str]:
    from benchmarks.network import free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(FILE_BYTES)], start_new_session=True)
    try:
        _wait(lambda: _answers(f"http://127.0.0.1:{port}/0.bin"), "the file server")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


# A full refresh


def _refreshes(this: Run, source: PostgresServer, sizes: Sizes) -> None:
    database = source.new_database()
    this.say(f"a table of {sizes.rows:,} rows × {len(COLUMNS)} columns")
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    values = ", ".join(value for _, value in COLUMNS.values())
    source.execute(f"CREATE TABLE orders ({columns})", database=database)
    source.execute(f"INSERT INTO orders SELECT {values} FROM generate_series(1, {sizes.rows}) AS g(i)", database=database)
    source.execute("VACUUM ANALYZE orders", database=database)
    source.execute("CHECKPOINT")
    jobs = f'[jobs.orders]\nkind = "postgres"\nsource = "{source.socket_url(database)}"\ntables = ["orders"]\n'
    ours, theirs, held, inserts = [], [], [], []
    version = 0
    with _pond(this, "refresh", jobs) as (keeper, client):
        for turn in range(sizes.refreshes + 1):
            this.say(f"turn {turn}: by the job, and by DuckDB's scanner")
            status = _ended(client, "orders")
            version = status["versions"][-1]
            scanned_s = _scanned_s(source.socket_url(database), keeper.home.parent / f"scanned-{turn}.duckdb", sizes.rows)
            if turn:  # the first turn warms both
                ours.append(_took_s(status))
                held.append(status["held_s"])
                theirs.append(scanned_s)
                inserts.append(_inserted_s(keeper.published, keeper.home.parent / f"inserted-{turn}.duckdb"))
        decoded_s = _decoded_s(source.socket_url(database))
        [[count]] = client.query("SELECT count(*) FROM orders", at_least=version).rows
        assert count == sizes.rows
    name = f"{sizes.rows:,} rows × {len(COLUMNS)} columns, full refresh"
    this.add(
        Figure(name, median(ours), "s", "CREATE TABLE AS of the scanner", median(theirs), REFRESH_BAR, "from the trigger to its end"),
        Figure(f"{name}: the file is held", median(held), "s", "whole run", median(ours), HOLD_BAR),
        Figure("… of it the driver, in seconds of processor", decoded_s, "s"),
        Figure("… and DuckDB's INSERT of the same rows, out of memory", median(held), "s", "BEGIN to COMMIT", median(inserts), note=LEAST_HELD),
    )


def _inserted_s(snapshot: Path, file: Path) -> float:
    """What the load alone takes DuckDB: rows that are in memory, in the place of as many others."""
    with duckdb.connect(str(snapshot), read_only=True) as published:
        rows = published.sql("FROM orders").to_arrow_table()
    with duckdb.connect(str(file)) as connection:
        connection.register("rows", rows)
        connection.execute("CREATE TABLE orders AS FROM rows")
        connection.execute("CHECKPOINT")
        began = time.perf_counter()
        for statement in ("BEGIN", "DELETE FROM orders", "INSERT INTO orders FROM rows", "COMMIT"):
            connection.execute(statement)
        took_s = time.perf_counter() - began
    file.unlink()
    return took_s


def _decoded_s(url: str) -> float:
    """Processor time that the driver takes to make Arrow of the rows: it depends much on how its wheel was built."""
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        began = time.process_time()
        cursor.execute("SELECT * FROM orders")
        for _ in cursor.fetch_record_batch():
            pass
        return time.process_time() - began


def _scanned_s(url: str, file: Path, rows: int) -> float:
    """What DuckDB alone takes, from opening its file to closing it; the loading of the extension is not counted."""
    connection = duckdb.connect(str(file))
    load(connection, "postgres_scanner")
    connection.execute("SET enable_progress_bar = false")
    began = time.perf_counter()
    connection.execute(f"ATTACH '{url}' AS source (TYPE postgres, READ_ONLY)")
    connection.execute("CREATE TABLE orders AS FROM source.public.orders")
    connection.execute("DETACH source")
    connection.close()
    took_s = time.perf_counter() - began
    with duckdb.connect(str(file), read_only=True) as look:
        assert look.execute("SELECT count(*) FROM orders").fetchone() == (rows,)
    file.unlink()
    return took_s


# Changes as they happen


def _changes(this: Run, source: PostgresServer, sizes: Sizes) -> None:
    database = source.new_database()
    source.execute("CREATE TABLE item (id bigint PRIMARY KEY, amount int, note text)", database=database)
    source.execute("INSERT INTO item SELECT i, 0, 'a note' FROM generate_series(1, 100000) AS g(i)", database=database)
    source.execute("CREATE TABLE mark (id int PRIMARY KEY)", database=database)
    jobs = (
        f'[jobs.changes]\nkind = "postgres"\nmode = "cdc"\nsource = "{source.socket_url(database)}"\n'
        'tables = ["item", "mark"]\nschedule = "always"\n'
    )
    with _pond(this, "changes", jobs) as (keeper, client):
        this.say(f"{CHANGES_PER_S:,} changes a second for {sizes.changes_s:g} s")
        _wait(lambda: _copied(client), "the first copy")
        sent: dict[int, float] = {}
        stop = threading.Event()
        thread = threading.Thread(target=_change, args=(source, database, sent, stop))
        began, cpu_s = time.monotonic(), _cpu_s(keeper.pid)
        thread.start()
        seen = _seen(client, sizes.changes_s)
        spent = (_cpu_s(keeper.pid) - cpu_s) / (time.monotonic() - began)
        stop.set()
        thread.join()
        _wait(lambda: _newest_mark(client) == max(sent), "the last change")
        client.jobs.disable("changes")
    lags = [min(at for at, newest in seen if newest >= number) - at_source for number, at_source in sent.items() if number <= seen[-1][1]]
    note = f"{len(lags)} marks among {CHANGES_PER_S:,} changes/s; with {spent:.2f} processors, of keeper, writer, copier, readers and the run"
    name = f"change data capture at {CHANGES_PER_S:,} changes/s: commit to visible"
    this.add(
        Figure(f"{name}, p50", percentile(lags, 0.5), "s"),
        Figure(f"{name}, p99", percentile(lags, 0.99), "s", bar=LAG_BAR, note=note),
        Figure("… processors that it takes", spent, "cores"),
    )


def _change(source: PostgresServer, database: str, sent: dict[int, float], stop: threading.Event) -> None:
    """A tenth of a second's changes in a transaction, with a mark; when each was committed."""
    number, each = 0, CHANGES_PER_S // 10
    with source.connect(database) as connection:
        begin = time.monotonic()
        while not stop.is_set():
            number += 1
            with connection.transaction():
                connection.execute(
                    "UPDATE item SET amount = amount + 1 WHERE id BETWEEN %s AND %s",
                    [1 + number * 61 % 99_000, number * 61 % 99_000 + each - 1],
                )
                connection.execute("INSERT INTO mark VALUES (%s)", [number])
            sent[number] = time.monotonic()
            stop.wait(max(0.0, begin + number / 10 - time.monotonic()))


def _copied(client: Client) -> bool:
    from pondkeeper.errors import PondkeeperError

    try:
        [[count]] = client.query("SELECT count(*) FROM item").rows
        return _newest_mark(client) == 0 and count == 100_000
    except PondkeeperError:
        return False


def _newest_mark(client: Client) -> int:
    [[newest]] = client.query("SELECT coalesce(max(id), 0) FROM mark").rows
    return int(newest)


def _seen(client: Client, seconds: float) -> list[tuple[float, int]]:
    """What a reader sees, and when."""
    found, ends_at = [], time.monotonic() + seconds
    while time.monotonic() < ends_at:
        newest = _newest_mark(client)
        found.append((time.monotonic(), newest))
        time.sleep(0.02)
    return found


def _cpu_s(pid: int) -> float:
    """Processor time of a keeper and all that it started, runs too."""
    ticks = 0
    for each in tree(pid):
        try:
            ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            continue  # it has ended meanwhile
    return ticks / os.sysconf("SC_CLK_TCK")


def _wait(is_there: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + 120
    while not is_there():
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"{what} did not come")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(run("jobs", __doc__, measure, budget_s=600, short_budget_s=180))

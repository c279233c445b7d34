"""The scenes of jobs: many clicks, many syncs at once, and a keeper that dies in the middle of everything."""

from __future__ import annotations

import http.server
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from tests.conftest import StartKeeper
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.postgres import PostgresServer
from tests.support.processes import is_alive

pytestmark = pytest.mark.acceptance
CLICKS = SYNCS = 8
ROWS, MORE_ROWS = 20_000, 60_000
FILES, FILE_BYTES = 120, 5_000
FINISHED_WITHIN_S = 120.0


def with_jobs(folder: Path, jobs: str) -> Path:
    """The file of a database beside which these jobs are configured."""
    home = folder / ".pondkeeper"
    home.mkdir(mode=0o700)
    (home / "pondkeeper.toml").write_text(textwrap.dedent(jobs))
    return folder / "pond.duckdb"


def seconds_of(run: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "finished_at"))
    return (ended - began).total_seconds()


class Reader:
    """Somebody who asks all the time, and what he was told other than answers."""

    def __init__(self, keeper: KeeperProcess) -> None:
        self._keeper = keeper
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers, self.errors = 0, set[str]()

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with self._keeper.client(retry_for_s=0.0) as client:
            while not self._over.is_set():
                try:
                    client.query("SELECT count(*) FROM duckdb_tables()")
                    self.answers += 1
                except PondkeeperError as error:
                    self.errors.add(error.code)


def test_eight_clicks_are_one_run(start_keeper: StartKeeper, tmp_path: Path, postgres: PostgresServer, source: str) -> None:
    """Whoever clicks while the sync waits or goes on is told the id of that run."""
    postgres.execute(f"CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, {ROWS}) AS g(i)", database=source)
    keeper = start_keeper(
        with_jobs(tmp_path, f'[jobs.orders]\nkind = "postgres"\nsource = "{postgres.socket_url(source)}"\ntables = ["orders"]\n')
    )
    clients = [keeper.client() for _ in range(CLICKS)]
    with ThreadPoolExecutor(CLICKS) as threads:
        ids = list(threads.map(lambda client: client.jobs.run("orders")["run_id"], clients))
    assert len(set(ids)) == 1
    ended = clients[0].jobs.wait(ids[0], timeout_s=FINISHED_WITHIN_S)
    assert clients[0].query("SELECT count(*) FROM orders", at_least=ended["versions"][-1]).scalar() == ROWS
    assert [run["run_id"] for run in clients[0].jobs.runs("orders")] == [ids[0]]


def test_eight_syncs_at_once_stand_in_nobodys_way(
    start_keeper: StartKeeper, tmp_path: Path, postgres: PostgresServer, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All succeed, one load after the other; reads and writes go on; the file is held for a small part of the time."""
    jobs = f"[runs]\nmax_running = {SYNCS}\n"
    for number in range(SYNCS):
        postgres.execute(
            f"CREATE TABLE shop_{number} AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, {ROWS}) AS g(i)", database=source
        )
        jobs += f'[jobs.shop_{number}]\nkind = "postgres"\nsource = "{postgres.socket_url(source)}"\ntables = ["shop_{number}"]\n'
    keeper = start_keeper(with_jobs(tmp_path, jobs))
    client = keeper.client()
    began = time.monotonic()
    with Reader(keeper) as reader:
        ids = [client.jobs.run(f"shop_{number}")["run_id"] for number in range(SYNCS)]
        client.execute("CREATE TABLE beside AS SELECT 1 AS i")
        runs = [client.jobs.wait(run_id, timeout_s=FINISHED_WITHIN_S) for run_id in ids]
    whole_s = time.monotonic() - began

    assert {run["phase"] for run in runs} == {"done"}
    assert {run["failures"] for run in runs} == {0}, "no attempt was refused on the way"
    loads = [version for run in sorted(runs, key=lambda run: str(run["finished_at"])) for version in run["versions"]]
    newest = client.execute("SELECT 1").version
    counts = [client.query(f"SELECT count(*) FROM shop_{number}", at_least=newest).scalar() for number in range(SYNCS)]
    assert counts == [ROWS] * SYNCS
    assert len(loads) == SYNCS
    assert max(loads) <= newest
    assert reader.errors == set()
    assert reader.answers > SYNCS
    assert "Could not set lock" not in keeper.log()
    held_s, longest_s = sum(run["held_s"] for run in runs), max(run["held_s"] for run in runs)
    with capsys.disabled():
        print(f"\neight syncs in {whole_s:.2f} s: the file was held for {held_s:.2f} s in all, {longest_s:.3f} s at the longest")
    assert longest_s < whole_s / 4


# A keeper that dies


class _Files(http.server.BaseHTTPRequestHandler):
    """Files of known content, each after a moment."""

    def do_GET(self) -> None:
        time.sleep(0.05)
        body = content_of(int(self.path.strip("/").removesuffix(".bin")))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:  # type: ignore[override]
        """Nothing: stderr is for those who read it."""


def content_of(number: int) -> bytes:
    return f"{number} ".encode() * (FILE_BYTES // 6)


@contextmanager
def file_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


DLT_SOURCE = """
    import time
    import dlt

    @dlt.resource(write_disposition="append")
    def events(last=dlt.sources.incremental("id", initial_value=0)):
        for first in range(last.last_value + 1, 3001, 500):
            time.sleep(0.3)
            yield [{"id": number, "what": f"event {number}"} for number in range(first, first + 500)]
"""
DBT_PROJECT = {
    "dbt_project.yml": 'name: small\nversion: "1.0.0"\nconfig-version: 2\nprofile: small\nflags: {send_anonymous_usage_stats: false}\n'
    "models: {small: {+materialized: table}}\n",
    "profiles.yml": "small:\n  target: keeper\n  outputs:\n    keeper: {type: duckdb, path: \"{{ env_var('PONDKEEPER_DATABASE') }}\", schema: marts, threads: 1}\n",
    "models/numbers.sql": "SELECT range AS n FROM range(1000)",
    "models/slow.sql": "SELECT count(*) AS n FROM range(20000) a, range(20000) b, {{ ref('numbers') }} c WHERE a.range * b.range % 7 = 1 AND c.n = 1",
}
JOBS = """
    [runs]
    max_running = 4
    [jobs.orders]
    kind = "postgres"
    mode = "incremental"
    source = "{source}"
    tables = ["orders"]
    cursor = "changed"
    overlap = 10
    [jobs.events]
    kind = "dlt"
    source = "{folder}/events_source.py:events"
    [jobs.marts]
    kind = "dbt"
    project = "{folder}/project"
    [jobs.files]
    kind = "download"
    query = "SELECT '{url}/' || number || '.bin' AS url, number FROM wanted WHERE NOT is_there"
    mark = "UPDATE wanted SET is_there = true WHERE number IN (SELECT number FROM downloaded)"
    folder = "{folder}/files"
    workers = 4
    batch = 20
"""
NAMES = ("orders", "events", "marts", "files")


@pytest.mark.fault
@pytest.mark.timeout(400)  # two kills, and dbt and dlt take seconds to start
@pytest.mark.parametrize("who_dies", ["the keeper", "the keeper and its runs"])
def test_everything_finishes_after_a_kill_in_the_middle(
    who_dies: str, start_keeper: StartKeeper, tmp_path: Path, postgres: PostgresServer, source: str
) -> None:
    """`kill -9` amid an incremental sync, a dlt load, a dbt build and a download: all are finished, and both sides agree."""
    pytest.importorskip("dlt")
    pytest.importorskip("dbt")
    for name, text in DBT_PROJECT.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    (tmp_path / "events_source.py").write_text(textwrap.dedent(DLT_SOURCE))
    fill(postgres, source, 1, ROWS)
    with file_server() as url:
        keeper = start_keeper(
            with_jobs(tmp_path, JOBS.format(source=postgres.socket_url(source), folder=tmp_path, url=url))
        )
        client = keeper.client()
        client.execute(f"CREATE TABLE wanted AS SELECT range AS number, false AS is_there FROM range({FILES})")
        client.jobs.wait(client.jobs.run("orders")["run_id"], timeout_s=FINISHED_WITHIN_S)
        fill(postgres, source, ROWS + 1, MORE_ROWS)
        postgres.execute(f"UPDATE orders SET note = note || '!', changed = changed + {MORE_ROWS} WHERE id % 7 = 0", database=source)
        ids = {name: client.jobs.run(name)["run_id"] for name in NAMES}
        wait_until(lambda: all(is_under_way(client, run_id) for run_id in ids.values()), what="runs under way")
        unfinished = [name for name, run_id in ids.items() if client.jobs.status(run_id)["phase"] not in ("done", "failed")]
        pids = [pid for run_id in ids.values() if (pid := client.jobs.status(run_id)["pid"])]
        keeper.kill9()
        if who_dies != "the keeper":
            for pid in pids:
                if is_alive(pid):
                    os.killpg(pid, signal.SIGKILL)
        keeper.restart()
        client = keeper.client()
        ended = {name: client.jobs.wait(run_id, timeout_s=FINISHED_WITHIN_S) for name, run_id in ids.items()}

    assert len(unfinished) >= 3, f"the positive control: only {unfinished} were in the middle"
    assert {name: run["phase"] for name, run in ended.items()} == dict.fromkeys(NAMES, "done")
    newest = client.execute("SELECT 1").version
    there = postgres.execute("SELECT count(*), sum(id), md5(string_agg(id || note, ',' ORDER BY id)) FROM orders", database=source)
    here = client.query("SELECT count(*), sum(id)::BIGINT, md5(string_agg(id || note, ',' ORDER BY id)) FROM orders", at_least=newest).rows
    assert [[int(count), int(total), digest] for count, total, digest in here] == [[int(count), int(total), digest] for count, total, digest in there]
    assert client.query("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM events.events").rows == [[3000, 3000, 1, 3000]]
    assert client.query("SELECT n > 0 FROM marts.slow").rows == [[True]]
    assert client.query("SELECT count(*) FROM wanted WHERE is_there").scalar() == FILES
    assert all((tmp_path / "files" / f"{number}.bin").read_bytes() == content_of(number) for number in range(FILES))


def fill(postgres: PostgresServer, source: str, first: int, last: int) -> None:
    postgres.execute("CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, note text, changed int)", database=source)
    postgres.execute(f"INSERT INTO orders SELECT i, md5(i::text), i FROM generate_series({first}, {last}) AS g(i)", database=source)


def is_under_way(client: Client, run_id: str) -> bool:
    return client.jobs.status(run_id)["phase"] not in ("queued", "starting")

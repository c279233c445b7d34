"""Bodies that are small on the wire and large when they are read: a stager pays, its client is told, and nothing stays."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pondkeeper.workers.ceiling import Ceiling
from tests.bombs.test_walls import data_limit_bytes, highest_rss
from tests.support.asking import Asked, code_of
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.processes import rss_bytes
from tests.support.sizes import size_bytes

pytestmark = pytest.mark.fault
MIB = 1 << 20
CEILING = Ceiling(256 * MIB)
KEEPER_MAY_GROW_BYTES = 48 * MIB
MOST_STAGED_BYTES = 64 * MIB
MOST_ROWS = 5_000_000
BOMB_TIMEOUT_S = 8.0  # less than its neighbours may wait: a bomb that reaches the writer has it until then
TELLING = {"out_of_memory", "disk_full", "body_invalid", "rows_invalid", "columns_differ", "worker_died", "body_too_large", "write_timed_out"}

# Why their own: what can be known before anything is read costs no process.
TOLD_BY_NAME = {
    "a line nested a million deep": {"rows_invalid"},
    "columns nested a million deep": {"body_invalid"},
    "a document nested a million deep": {"rows_invalid"},
    "millions of rows in some kilobytes": {"body_too_large"},
}


def _one_long_string_many_times() -> bytes:
    """A dictionary of one string of 4 MB, and 20,000 rows that name it: 80 GB when they are read."""
    strings = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 4_000_000]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"s": strings}), sink, compression="zstd", row_group_size=20_000)
    return sink.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "one long string many times": ("parquet", _one_long_string_many_times),
    "a line nested a million deep": ("ndjson", lambda: b'{"n":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}\n"),
    "columns nested a million deep": ("json", lambda: b'{"columns":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b',"rows":[[1]]}'),
    "millions of rows in some kilobytes": ("parquet", lambda: _parquet(pa.table({"n": pa.nulls(4 * MOST_ROWS, pa.int64())}))),
    "a document nested a million deep": ("json", lambda: b"[" * 1_000_000 + b"]" * 1_000_000),
    "a number of ten million digits": ("ndjson", lambda: b'{"n":' + b"9" * 10_000_000 + b"}\n"),
    "a hundred thousand columns": ("csv", lambda: b",".join(b"c%d" % n for n in range(100_000)) + b"\n" + b",".join([b"1"] * 100_000) + b"\n"),
    "a quotation that never ends": ("csv", lambda: b'n\n"' + b"1,\n" * 20_000_000),
}


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    environment = {
        "PONDKEEPER_INGEST_MEMORY_LIMIT_BYTES": "256MiB",
        "PONDKEEPER_INGEST_STAGING_LIMIT_BYTES": str(MOST_STAGED_BYTES),
        "PONDKEEPER_INGEST_TEMP_LIMIT_BYTES": "64MiB",
        "PONDKEEPER_INGEST_MAX_ROWS": str(MOST_ROWS),
        "PONDKEEPER_INGEST_TIMEOUT_S": "60",
    }
    target = tmp_path_factory.mktemp("bodies") / "pond.duckdb"
    with KeeperProcess(target, "--readers", "2", "--memory-limit", "256MiB", environment=environment) as keeper:
        keeper.client().execute("CREATE TABLE t (n BIGINT)")
        yield keeper


def test_a_stager_has_the_kernels_wall(pond: KeeperProcess) -> None:
    """RLIMIT_DATA is what the ceiling says."""
    pond.client().ingest("t", b'{"n":1}\n', format="ndjson")
    [stager, *_] = pond.children("stager")
    assert data_limit_bytes(stager) == CEILING.rlimit_data_bytes


@pytest.mark.parametrize("name", BODIES)
def test_a_bomb_of_a_body_costs_its_own_client_only(pond: KeeperProcess, name: str) -> None:
    """It is refused and said why; the keeper does not grow, nothing of it stays on the disk, the next ingest passes."""
    format_, make = BODIES[name]
    body, client = make(), pond.client(retry_for_s=0.0)
    table = "t" if format_ in ("ndjson", "json") else "made"
    client.ingest("t", b'{"n":1}\n', format="ndjson")
    before_bytes = rss_bytes(pond.pid)
    with highest_rss(pond, "stager") as highest:
        bomb = Asked(lambda: client.ingest(table, body, format=format_, create=table == "made", timeout_s=BOMB_TIMEOUT_S))
        small = pond.client(retry_for_s=0.0).ingest("t", b'{"n":2}\n' * 100, format="ndjson")
        outcome = bomb.outcome(80)
    assert code_of(outcome) in TOLD_BY_NAME.get(name, TELLING), outcome
    assert small.rows == 100
    assert 0 < highest[0] < CEILING.rss_bytes
    assert rss_bytes(pond.pid) - before_bytes < KEEPER_MAY_GROW_BYTES
    assert client.ingest("t", b'{"n":3}\n', format="ndjson").rows == 1
    wait_until(lambda: _left(pond) == 0, timeout_s=20, what="a clean house")


def _left(pond: KeeperProcess) -> int:
    """Bytes of bodies, staged rows and spilled memory that lie about."""
    folders: list[Path] = [pond.database.incoming, pond.home.temp, pond.database.staging]
    return sum(size_bytes(folder) for folder in folders if folder.exists())

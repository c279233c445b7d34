"""Stagers as processes: kept, killed when nobody waits, replaced when they are spent, and no more of them than may be."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pondkeeper.errors import BodyInvalid, OutOfMemory, PondkeeperError, RowsInvalid, WorkerDied
from pondkeeper.staging.desk import ENTRY, SnapshotGone, StagerLimits, StagingDesk
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import Template
from tests.staging.conftest import as_arrow

PRELOADING = "pondkeeper.engine.preloading"
SHAPE = {"schema": "main", "table": "t", "columns": [{"name": "n", "type": "BIGINT"}, {"name": "s", "type": "VARCHAR"}]}
MIB = 1024 * 1024
GONE_S = 20.0


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[StagingDesk]:
    """Two stagers at most, of 256 MiB each, that may see the test's folder."""
    template = Template([PRELOADING, ENTRY])
    limits = StagerLimits(count=2, memory_limit_bytes=256 * MIB, threads=2, temp_limit_bytes=256 * MIB)
    desk = StagingDesk(template, limits, tmp_path / "temp", Fence(write=(str(tmp_path),)))
    yield desk
    await desk.stop()
    await template.stop()
    await asyncio.sleep(0)


def job(folder: Path, body: bytes, form: str = "ndjson", name: str = "body") -> dict[str, Any]:
    path = folder / name
    path.write_bytes(body)
    output = folder / f"{name}.staged"
    output.mkdir(exist_ok=True)
    wish = {"schema": "main", "table": "t", "shape": SHAPE, "mode": "append", "keys": [], "create": False, "evolve": False}
    return {
        "path": str(path),
        "format": form,
        "delimiter": ",",
        "has_header": True,
        "wish": wish,
        "folder": str(output),
        "rejects": None,
        "limit_bytes": 512 * MIB,
    }


def rows(count: int) -> bytes:
    return b"".join(b'{"n": %d, "s": "text"}\n' % n for n in range(count))


async def until(condition: Any, what: str) -> Any:
    async with asyncio.timeout(GONE_S):
        while not (value := condition()):  # noqa: ASYNC110  Why: what is waited for is another process
            await asyncio.sleep(0.01)
    assert value, what
    return value


async def test_a_stager_is_kept(desk: StagingDesk, tmp_path: Path) -> None:
    """One process serves one body after the other, and is there after an error."""
    assert (await desk.stage(job(tmp_path, rows(10))))["rows"] == 10
    (pid,) = desk.pids
    with pytest.raises(RowsInvalid):
        await desk.stage(job(tmp_path, b'{"n": "x"}'))
    assert (await desk.stage(job(tmp_path, as_arrow(pa.table({"n": [1], "s": ["x"]})), "arrow")))["is_as_it_came"]
    assert desk.pids == [pid]


async def test_whoever_gives_up_kills_it(desk: StagingDesk, tmp_path: Path) -> None:
    """A deadline ends the process, whatever it does, and nothing of it stays."""
    await desk.stage(job(tmp_path, rows(10)))
    (pid,) = desk.pids
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await desk.stage(job(tmp_path, rows(1_000_000)))

    assert pid not in desk.pids
    await until(lambda: not _exists(pid), "the end of the process")
    assert (await desk.stage(job(tmp_path, rows(10))))["rows"] == 10


@pytest.mark.fault
async def test_a_stager_that_is_killed(desk: StagingDesk, tmp_path: Path) -> None:
    """At work it costs its own body; idle it costs nothing."""
    await desk.stage(job(tmp_path, rows(10)))
    (pid,) = desk.pids
    os.kill(pid, signal.SIGKILL)
    assert (await desk.stage(job(tmp_path, rows(10))))["rows"] == 10, "an idle one was killed"

    (pid,) = desk.pids
    staging = asyncio.create_task(desk.stage(job(tmp_path, rows(1_000_000))))
    await until(lambda: _has_open(pid, "body"), "a stager at work")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        await staging


async def test_no_more_than_may_be(desk: StagingDesk, tmp_path: Path) -> None:
    """Six bodies and two stagers: the others wait, and all are staged."""
    jobs = [job(tmp_path, rows(50_000), name=f"body{number}") for number in range(6)]
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(desk.pids))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    staged = await asyncio.gather(*map(desk.stage, jobs))
    watching.cancel()

    assert [each["rows"] for each in staged] == [50_000] * 6
    assert most == 2


async def test_a_bomb(desk: StagingDesk, tmp_path: Path) -> None:
    """A small body that unpacks to gigabytes is an error of ours, and the next body has a stager again."""
    size = 3 * 1024 * MIB
    big = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x" * 100])], names=["n", "s"])
    schema = big.schema
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        text = pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(bytes(4) + (2**31 - 64).to_bytes(4, "little")), pa.py_buffer(bytes(2**31 - 64))]
        )
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array([1]), text], schema=schema))
    body = sink.getvalue().to_pybytes()
    assert len(body) < size / 1000, "the positive control: it is small"
    del text

    with pytest.raises((OutOfMemory, WorkerDied, BodyInvalid)) as refused:
        await desk.stage(job(tmp_path, body, "arrow"))

    assert isinstance(refused.value, PondkeeperError)
    assert (await desk.stage(job(tmp_path, rows(10))))["rows"] == 10


async def test_a_snapshot_that_is_gone(desk: StagingDesk, tmp_path: Path) -> None:
    with pytest.raises(SnapshotGone):
        await desk.shape(str(tmp_path / "none.duckdb"), "main", "t")


@pytest.mark.privileged
async def test_it_opens_no_other_file(desk: StagingDesk, tmp_path: Path) -> None:
    """A message that named a file elsewhere would not be obeyed: the kernel lets it into its folders only."""
    outside = Path("/etc/hostname")
    if not outside.exists():
        pytest.skip("there is no file to try it with")
    wanted = job(tmp_path, b"") | {"path": str(outside)}
    with pytest.raises(PondkeeperError) as refused:
        await desk.stage(wanted)
    assert not isinstance(refused.value, (RowsInvalid, BodyInvalid)), "it was read"


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _has_open(pid: int, name: str) -> bool:
    try:
        return any(fd.readlink().name == name for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False

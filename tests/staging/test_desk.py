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
GONE_S = 60.0


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[StagingDesk]:
    """Two stagers at most, of 256 MiB each."""
    template = Template([PRELOADING, ENTRY])
    limits = StagerLimits(count=2, memory_limit_bytes=256 * MIB, threads=2, temp_limit_bytes=256 * MIB)
    desk = StagingDesk(template, limits, tmp_path / "temp")
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


async def staged(desk: StagingDesk, wanted: dict[str, Any], within: Path | None = None) -> dict[str, Any]:
    """What came of a job, by a stager that may see the folder of its output and what is beside, or another one."""
    return await desk.stage(wanted, Fence(write=(str(within or Path(wanted["folder"]).parent),)))


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
    assert (await staged(desk, job(tmp_path, rows(10))))["rows"] == 10
    (pid,) = desk.pids
    with pytest.raises(RowsInvalid):
        await staged(desk, job(tmp_path, b'{"n": "x"}'))
    assert (await staged(desk, job(tmp_path, as_arrow(pa.table({"n": [1], "s": ["x"]})), "arrow")))["is_as_it_came"]
    assert desk.pids == [pid]


async def test_whoever_gives_up_kills_it(desk: StagingDesk, tmp_path: Path) -> None:
    """A deadline ends the process, whatever it does, and nothing of it stays."""
    await staged(desk, job(tmp_path, rows(10)))
    (pid,) = desk.pids
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await staged(desk, job(tmp_path, rows(1_000_000)))

    assert pid not in desk.pids
    await until(lambda: not _exists(pid), "the end of the process")
    assert (await staged(desk, job(tmp_path, rows(10))))["rows"] == 10


@pytest.mark.fault
async def test_a_stager_that_is_killed(desk: StagingDesk, tmp_path: Path) -> None:
    """At work it costs its own body; idle it costs nothing."""
    await staged(desk, job(tmp_path, rows(10)))
    (pid,) = desk.pids
    os.kill(pid, signal.SIGKILL)
    assert (await staged(desk, job(tmp_path, rows(10))))["rows"] == 10, "an idle one was killed"

    (pid,) = desk.pids
    staging = asyncio.create_task(staged(desk, job(tmp_path, rows(1_000_000))))
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
    found = await asyncio.gather(*(staged(desk, each) for each in jobs))
    watching.cancel()

    assert [each["rows"] for each in found] == [50_000] * 6
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
        await staged(desk, job(tmp_path, body, "arrow"))

    assert isinstance(refused.value, PondkeeperError)
    assert (await staged(desk, job(tmp_path, rows(10))))["rows"] == 10


async def test_a_snapshot_that_is_gone(desk: StagingDesk, tmp_path: Path) -> None:
    with pytest.raises(SnapshotGone):
        await desk.shape(str(tmp_path / "none.duckdb"), "main", "t", Fence())


@pytest.mark.privileged
async def test_it_opens_no_other_file(desk: StagingDesk, tmp_path: Path) -> None:
    """A message that named a file elsewhere would not be obeyed: the kernel lets it into its folders only."""
    outside = Path("/etc/hostname")
    if not outside.exists():
        pytest.skip("there is no file to try it with")
    wanted = job(tmp_path, b"") | {"path": str(outside)}
    with pytest.raises(PondkeeperError) as refused:
        await staged(desk, wanted)
    assert not isinstance(refused.value, (RowsInvalid, BodyInvalid)), "it was read"


@pytest.mark.privileged
async def test_a_stager_works_for_one_database(desk: StagingDesk, tmp_path: Path) -> None:
    """Bodies of another database get another process, behind another fence, in the place of an idle one where need be."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    for folder in (ours, theirs, ours, theirs):
        assert (await staged(desk, job(folder, rows(10))))["rows"] == 10
        assert len(desk.pids) <= 2
    first, second = desk.pids
    assert first != second
    (tmp_path / "more").mkdir()
    await staged(desk, job(tmp_path / "more", rows(10)))
    assert len(desk.pids) == 2
    with pytest.raises(PondkeeperError) as refused:
        await staged(desk, job(theirs, rows(10)), within=ours)
    assert not isinstance(refused.value, (RowsInvalid, BodyInvalid)), "it was read"


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _has_open(pid: int, name: str) -> bool:
    try:
        return any(fd.readlink().name == name for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False

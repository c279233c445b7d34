"""The pool with readers that nobody may trust: each misbehaviour costs its own query, and never the keeper."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pondkeeper.errors import PondkeeperError, ReadersBusy, WorkerDied
from pondkeeper.readers import answer as answer_module
from pondkeeper.readers import pool as pool_module
from pondkeeper.readers.answer import AnswerStream
from pondkeeper.readers.asking import PoolLimits, Question
from pondkeeper.readers.pool import Pool
from pondkeeper.readers.reader import Resources, Snapshot
from pondkeeper.workers import precedence
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import Template
from tests.support.keeper import program_environment

HERE = Path(__file__).parent
SNAPSHOT = Snapshot("pond", 1, "/nowhere")
MISBEHAVIOURS = [
    "data before the head",
    "a head without a type",
    "no op",
    "an unknown op",
    "an end at once",
    "an error without an error",
    "an error that fits no error",
    "an error that is a list",
    "an end of wrong types",
    "no frame at all",
    "a frame of a terabyte",
]


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """A pool of two rogue readers in real processes."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), program_environment()["PYTHONPATH"]]))
    monkeypatch.setattr(pool_module, "ENTRY", "rogue")
    template = Template(["rogue"])
    limits = PoolLimits(2, Resources(1 << 30, 1), 1 << 30, wait_s=1.0, max_waiting=5, kill_after_s=0.1)
    pool = Pool(template, limits, tmp_path, {"pond": Fence()})
    await pool.start()
    yield pool
    await pool.stop()
    await template.stop()


async def ask(pool: Pool, sql: str, timeout_s: float = 3.0) -> AnswerStream:
    deadline = asyncio.get_running_loop().time() + timeout_s
    return await pool.ask(Question("q", {"sql": sql}, deadline, timeout_s, lambda: None), SNAPSHOT)


async def read_all(pool: Pool, sql: str) -> bytes:
    return b"".join([piece async for piece in await ask(pool, sql)])


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
async def test_reader_that_was_taken_over_is_ended(pool: Pool, misbehaviour: str) -> None:
    """Whatever it says instead of an answer, its client gets an error, and the next query an honest reader."""
    with pytest.raises(WorkerDied):
        await read_all(pool, misbehaviour)
    for _ in range(3):
        assert await read_all(pool, "honest") == b"1\n"
    assert pool.kills == 1


async def test_endless_answer_that_nobody_reads_is_bounded_and_cut(pool: Pool) -> None:
    """The keeper takes about a MiB of it and waits; at the deadline it is cut, whether it is read or not."""
    stream = await ask(pool, "data for ever", timeout_s=1.0)
    [child] = [reader.child for reader in pool._readers if reader.state == "busy"]
    most_bytes = 0
    while not child.exited.done():
        most_bytes = max(most_bytes, child.buffered_bytes)
        await asyncio.sleep(0.01)
    assert 0 < most_bytes < 8 << 20
    with pytest.raises(PondkeeperError, match="did not finish"):
        async for _ in stream:
            pass
    assert pool.states()["busy"] == 0


async def test_query_whose_time_went_by_before_its_turn_is_told_so(pool: Pool) -> None:
    """What was stopped at its deadline was too slow itself, or had to wait for too long: 503, and come back later."""
    own = await ask(pool, "data for ever", timeout_s=0.3)
    loop = asyncio.get_running_loop()
    late = await pool.ask(Question("q", {"sql": "data for ever"}, loop.time() + 0.3, 10.0, lambda: None), SNAPSHOT)
    for stream, code in ((own, "query_timed_out"), (late, "readers_busy")):
        with pytest.raises(PondkeeperError) as ended:
            await read_to_the_end(stream)
        assert ended.value.code == code


async def test_who_gives_a_query_no_time_has_not_waited_for_others(pool: Pool) -> None:
    """A deadline that is over before the query can be handed over is its own: 408, and no reason to come back later."""
    now = asyncio.get_running_loop().time()
    stream = await pool.ask(Question("q", {"sql": "data for ever"}, now, 5e-324, lambda: None), SNAPSHOT)
    with pytest.raises(PondkeeperError) as ended:
        await read_to_the_end(stream)
    assert ended.value.code == "query_timed_out"


async def test_a_bomb_dies_with_a_reader_that_nobody_else_has_warmed(pool: Pool) -> None:
    """Who asks again gets the reader that he had, however many readers another caller has lost meanwhile."""
    served: set[int] = set()
    for _ in range(4):
        await read_as(pool, "quiet", "honest")
        served.update(reader.child.pid for reader in pool._readers if reader.last_caller == "quiet")
        with pytest.raises(WorkerDied):
            await read_as(pool, "thrower", "no frame at all")
        await settled(pool)
    assert len(served) == 1
    assert pool.kills == 4


async def read_as(pool: Pool, caller: str, sql: str) -> None:
    deadline = asyncio.get_running_loop().time() + 3.0
    await read_to_the_end(await pool.ask(Question("q", {"sql": sql}, deadline, 3.0, lambda: None, caller=caller), SNAPSHOT))


async def settled(pool: Pool) -> None:
    """Return when every reader is idle again."""
    while pool.states()["idle"] < pool.limits.count:  # noqa: ASYNC110  Why: the pool tells nobody when all are idle
        await asyncio.sleep(0.01)


async def read_to_the_end(stream: AnswerStream) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("steps", range(6))
async def test_pool_that_stops_as_a_version_is_opened_ends(pool: Pool, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the event loop's next steps the stop comes in, the loop that opened the version ends."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    pool.publish(SNAPSHOT)
    while not pool.states()["opening"]:  # noqa: ASYNC110  Why: the pool tells nobody when it begins to open one
        await asyncio.sleep(0)
    [child] = [reader.child for reader in pool._readers if reader.state == "opening"]
    wake = child._wake

    def stop_after(left: int) -> None:
        loop.call_soon(stop_after, left - 1) if left else stopping.set()

    def wake_and_stop() -> None:
        wake()
        stop_after(steps)

    monkeypatch.setattr(child, "_wake", wake_and_stop)
    async with asyncio.timeout(20):
        await stopping.wait()
        await pool.stop()
    assert pool.states() == dict.fromkeys(pool.states(), 0)


async def test_readers_that_die_at_birth_are_started_ever_more_slowly(pool: Pool, tmp_path: Path) -> None:
    """A crash loop is braked, a query meanwhile is told that none is free, and the pool mends itself."""
    started: list[float] = []
    spawn = pool._template.spawn

    async def counted(*arguments: object) -> object:
        started.append(time.monotonic())
        return await spawn(*arguments)  # type: ignore[arg-type]

    pool._template.spawn = counted  # type: ignore[method-assign,assignment]
    (tmp_path / "die-at-birth").touch()
    for reader in list(pool._readers):
        reader.child.kill()
    with pytest.raises(ReadersBusy):
        await ask(pool, "honest")
    await asyncio.sleep(1.0)
    give_up_at = time.monotonic() + 60
    while len(started) < 4:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.05)
    assert len(started) < 40  # without a brake it would be hundreds
    (tmp_path / "die-at-birth").unlink()
    give_up_at = time.monotonic() + 60
    while pool.states()["idle"] < 2:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.05)
    assert await read_all(pool, "honest") == b"1\n"


async def test_a_reader_that_can_never_go_first_again_is_replaced_when_it_is_idle(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the privilege to take a nice value back, a long query costs a reader, later, and no query."""
    monkeypatch.setattr(answer_module, "long_after_s", lambda: 0.0)
    monkeypatch.setattr(precedence, "go_first", lambda _: False)
    monkeypatch.setattr(pool_module, "RENEW_INTERVAL_S", 0.0)
    before = {reader.child.pid for reader in pool._readers}
    assert await read_all(pool, "honest") == b"1\n"
    monkeypatch.setattr(answer_module, "long_after_s", lambda: 60.0)
    async with asyncio.timeout(60):
        while before <= {reader.child.pid for reader in pool._readers}:  # noqa: ASYNC110  Why: what is waited for is a process
            await asyncio.sleep(0.02)
    assert await read_all(pool, "honest") == b"1\n"
    assert pool.kills == 0
    assert len(before & {reader.child.pid for reader in pool._readers}) == 1, "the other one stays"

"""A reader serves one database, behind whose fence it was born: what it could be made to do stays there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pondkeeper.readers import pool as pool_module
from pondkeeper.readers.asking import PoolLimits, Question
from pondkeeper.readers.pool import Pool
from pondkeeper.readers.reader import Resources, Snapshot
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import Template
from pondkeeper.workers.walls import try_walls
from tests.support.keeper import program_environment

HERE = Path(__file__).parent
PLENTY_S = 60.0
ASKED = 12
REFUSED, SECRET = b"PermissionError", b"a row of it"
pytestmark = pytest.mark.skipif(bool(try_walls()["files"]), reason="this kernel fences no files in")

Make = Callable[..., "asyncio.Future[Pool]"]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """`await make(mode, count)`: a pool of rogue readers for the databases `ours` and `theirs`, a folder each."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), program_environment()["PYTHONPATH"]]))
    monkeypatch.setattr(pool_module, "ENTRY", "rogue")
    fences = {}
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").write_bytes(SECRET)
        fences[name] = Fence(read=(str(tmp_path / name),))
    made: list[tuple[Pool, Template]] = []

    async def make_pool(mode: str, count: int) -> Pool:
        template = Template(["rogue"], mode)
        limits = PoolLimits(count, Resources(1 << 30, 1), 1 << 30, wait_s=PLENTY_S, max_waiting=50, kill_after_s=0.1)
        pool = Pool(template, limits, tmp_path, fences)
        made.append((pool, template))
        await pool.start()
        return pool

    yield make_pool  # type: ignore[misc]  # the fixture yields a function
    for pool, template in made:
        await pool.stop()
        await template.stop()


async def read(pool: Pool, database: str, path: Path, caller: str = "") -> bytes:
    """What a reader of the database says of that file."""
    deadline = asyncio.get_running_loop().time() + PLENTY_S
    question = Question("q", {"sql": f"read {path}"}, deadline, PLENTY_S, lambda: None, caller=caller)
    stream = await pool.ask(question, Snapshot(database, 1, "/nowhere"))
    return b"".join([piece async for piece in stream])


def pids(pool: Pool) -> set[int]:
    return {reader.child.pid for reader in pool._readers}


@pytest.mark.parametrize("count", [1, 3])
async def test_the_reader_of_one_database_cannot_open_the_snapshots_of_another(make: Make, tmp_path: Path, count: int) -> None:
    """Whatever came before, and however few readers there are: each asks in vain for what is not its database's."""
    pool = await make("auto", count)
    for own, other in [("ours", "theirs"), ("theirs", "ours")] * 3:
        assert await read(pool, own, tmp_path / own / "rows") == SECRET
        assert await read(pool, own, tmp_path / other / "rows") == REFUSED
    assert pool.kills == 0, "a reader that gives way is not a failure"
    assert sum(pool.states().values()) <= count


async def test_without_the_wall_readers_are_shared_and_stay(make: Make, tmp_path: Path) -> None:
    """The positive control: nothing but the fence keeps them apart, and where there is none, nothing is paid for it."""
    pool = await make("off", 1)
    before = pids(pool)
    for own, other in [("ours", "theirs"), ("theirs", "ours")]:
        assert await read(pool, own, tmp_path / other / "rows") == SECRET
    assert pids(pool) == before


async def test_a_reader_stays_with_a_database_that_is_asked_again(make: Make, tmp_path: Path) -> None:
    pool = await make("auto", 2)
    before = pids(pool)
    for _ in range(5):
        for name in ("ours", "theirs"):
            assert await read(pool, name, tmp_path / name / "rows") == SECRET
    assert pids(pool) == before


async def test_many_at_once_for_both_are_all_answered(make: Make, tmp_path: Path) -> None:
    """One reader, two keys, two databases: every query has its turn, and the slot is never lost."""
    pool = await make("auto", 1)
    names = ["ours", "theirs"] * ASKED
    answers = await asyncio.gather(*(read(pool, name, tmp_path / name / "rows", f"key of {name}") for name in names))
    assert answers == [SECRET] * len(names)


async def test_who_goes_away_while_a_reader_is_born_for_him_leaves_it_to_the_next(make: Make, tmp_path: Path) -> None:
    pool = await make("auto", 1)
    ended: list[object] = []
    for name in ["theirs", "ours"] * 4:
        asked = asyncio.create_task(read(pool, name, tmp_path / name / "rows"))
        for _ in range(3):
            await asyncio.sleep(0)
        asked.cancel()
        ended += await asyncio.gather(asked, return_exceptions=True)  # on a slow machine it may have been answered before
    assert any(isinstance(each, asyncio.CancelledError) for each in ended), "the positive control: some went away"
    assert await read(pool, "theirs", tmp_path / "theirs" / "rows") == SECRET
    assert await read(pool, "ours", tmp_path / "ours" / "rows") == SECRET


async def test_a_database_that_comes_later_has_readers_too(make: Make, tmp_path: Path) -> None:
    pool = await make("auto", 2)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "rows").write_bytes(SECRET)
    pool.admit("late", Fence(read=(str(tmp_path / "late"),)))
    assert await read(pool, "late", tmp_path / "late" / "rows") == SECRET
    assert await read(pool, "late", tmp_path / "ours" / "rows") == REFUSED

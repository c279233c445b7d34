"""The fence alone: a plain DuckDB with every lock open, behind the fence of a reader, a stager and a writer; and without one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from campaigns.canaries import Bait, Listener, leaks
from campaigns.running import Stage
from campaigns.vectors import Vector, vectors
from pondkeeper.databases.fencing import of_reader, of_stager, of_writer
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import ChildSpec, Template

UNLOCKED = "campaigns.unlocked"
PRELOADING = "pondkeeper.engine.preloading"
ANSWER_S = 30.0
SHORT_SHARE = 5
PRISONERS = 6  # at a time: what takes long is DuckDB waiting to try again
LEAST_LEAKS = 50


class Prisoner:
    """A plain DuckDB in a child; a new one when it has died or hangs."""

    def __init__(self, template: Template, spec: ChildSpec) -> None:
        self._template = template
        self._spec = spec
        self._child: Child | None = None
        self.deaths = 0

    async def run(self, texts: tuple[str, ...]) -> str:
        """What the last of the texts came to."""
        if self._child is None:
            self._child = await self._template.spawn(self._spec)
        self._child.send({"texts": texts})
        try:
            async with asyncio.timeout(ANSWER_S):
                frame: Any = await self._child.next_frame()
        except (ChildGone, TimeoutError) as error:
            await self.end()
            self.deaths += 1
            return repr(error)
        return str(frame["text"])

    async def end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child.kill()
            await asyncio.shield(self._child.exited)
            self._child = None


def play(stage: Stage) -> None:
    """The part `fence`."""
    asyncio.run(_play(stage))


async def _play(stage: Stage) -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    os.environ["CANARY"] = "CANARY-7f3a9c in the environment"
    mine = _database(stage, "mine")
    # Why in a folder of its own: a writer may open what lies below its database's folder, which docs/explanation says.
    other = _database(stage, "other")
    bait = Bait(stage.folder / "bait", other.file, other.home / "control.db")
    other.home.joinpath("control.db").write_text(f"{'CANARY-7f3a9c'} in the control database")
    for name, fence, read_only in (
        ("reader", of_reader(mine), True),
        ("stager", of_stager(mine), True),
        ("writer", of_writer(mine), False),
        ("none", Fence(), False),
    ):
        await _one(stage, name, fence, mine, bait, read_only=read_only)


def _database(stage: Stage, name: str) -> DatabasePaths:
    paths = DatabasePaths(stage.room(name) / f"{name}.duckdb", stage.folder / name / ".pondkeeper")
    for folder in (paths.snapshots, paths.incoming, paths.staging, paths.turn, paths.home / "temp" / f"writer-{name}"):
        folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(paths.file)) as connection:
        word = "CANARY-7f3a9c" if name == "other" else "nothing"
        connection.execute(f"CREATE TABLE t AS SELECT 1 AS n, '{word}' AS word")
    paths.snapshot(1).parent.mkdir()
    paths.snapshot(1).write_bytes(paths.file.read_bytes())
    return paths


async def _one(stage: Stage, name: str, fence: Fence, mine: DatabasePaths, bait: Bait, *, read_only: bool) -> None:
    is_control = name == "none"
    template = Template([PRELOADING, UNLOCKED], "off" if is_control else "strict")
    with Listener() as listener:
        chosen = _chosen(vectors(bait.targets(listener.url)), is_short=stage.options.short)
        prisoners = [
            Prisoner(template, _spec(f"{name}-{number}", fence, mine, read_only=read_only))
            for number in range(PRISONERS)
        ]
        try:
            shares = (_leaks(prisoner, chosen[number::PRISONERS]) for number, prisoner in enumerate(prisoners))
            found = [leak for share in await asyncio.gather(*shares) for leak in share]
        finally:
            for prisoner in prisoners:
                await prisoner.end()
            await template.stop()
        changed, connections = bait.changes(), listener.connections
    deaths = sum(prisoner.deaths for prisoner in prisoners)
    stage.line(
        fence=name, vectors=len(chosen), leaked=len(found), made=len(changed), sockets=connections, deaths=deaths
    )
    if is_control:
        stage.control("a plain DuckDB leaks", found[LEAST_LEAKS:])
        stage.control("a plain DuckDB makes files", changed)
        stage.control("a plain DuckDB connects", [str(connections)] if connections else [])
    else:
        stage.violated([f"{name}: {text}" for text in found])
        stage.violated([f"{name}: made or changed {path}" for path in changed])
        stage.violated([f"{name}: {connections} connections"] if connections else [])


def _spec(name: str, fence: Fence, mine: DatabasePaths, *, read_only: bool) -> ChildSpec:
    """One prisoner, with a temp folder of its own, and a file of its own where it writes."""
    own = mine.home / "temp" / name
    own.mkdir()
    path = mine.snapshot(1)
    if not read_only:
        path = mine.file.with_name(f"{name}.duckdb")
        path.write_bytes(mine.file.read_bytes())
    config = {"path": str(path), "read_only": read_only, "temp_directory": str(own)}
    return ChildSpec("unlocked", UNLOCKED, config, fence=fence.with_own(own))


def _chosen(every: list[Vector], *, is_short: bool) -> list[Vector]:
    if not is_short:
        return every
    quick = [vector for vector in every if not vector.is_slow]
    slow = [vector for vector in every if vector.is_slow]
    sure = [vector for vector in slow if vector.name == "INSTALL FROM"]  # these connect, whatever is installed
    return quick[::SHORT_SHARE] + slow[:: SHORT_SHARE * 12] + sure


async def _leaks(prisoner: Prisoner, chosen: Iterable[Vector]) -> list[str]:
    found = []
    for vector in chosen:
        answer = await prisoner.run(vector.texts)
        if marks := leaks(answer, vector.texts[-1]):
            found.append(f"{', '.join(marks)} by {vector.texts!r}")
    return found

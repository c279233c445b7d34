"""Loads of jobs: what a run has staged is linked to where the writer may read it, and loaded in one turn of the queue."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pondkeeper.databases.ingesting import Surroundings
from pondkeeper.databases.running import Running, Stop
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.errors import InvalidRequest, PondkeeperError
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.writer.order import Priority
from pondkeeper.writer.write import Demand, Identity

STAGING = "staging"


@dataclass(frozen=True)
class LoadRequest:
    """A load, and how long it may wait for its turn and then run. Its files lie in the `staging/` of runs of this home."""

    plan: LoadPlan
    timeout_s: float
    wait_s: float
    priority: str = "background"
    key_id: str | None = None
    client: str | None = None


@dataclass(frozen=True)
class LoadOutcome:
    """A committed load: what each step has counted, how tables were changed for it, how long its transaction was open and
    how long it waited for its turn."""

    version: int
    counts: list[int]
    changes: list[str]
    held_s: float
    waited_s: float


class Loads:
    """Carries out the loads of one database."""

    def __init__(self, around: Surroundings, committed: Callable[[int], None]) -> None:
        self._around = around
        self._committed = committed
        self._tasks = SideTasks()

    async def run(self, request: LoadRequest) -> LoadOutcome:
        """Load; committed and fsynced when this returns. Raises PondkeeperError (nothing was applied) or OutcomeUnknown.

        Cancelled, it is dropped unless its turn has come.
        """
        around, plan = self._around, request.plan
        write_id, folder = around.running.new_id(), around.paths.staging / f"load-{secrets.token_hex(8)}"
        moved = await asyncio.to_thread(_linked, plan, around.paths, folder)
        entry = Running(write_id, "load", around.paths.name, plan.title, request.key_id, request.client, self._stop(write_id))
        around.running.add(entry)
        asked_at, begun_at = time.monotonic(), 0.0

        def has_its_turn() -> None:
            nonlocal begun_at
            begun_at = time.monotonic()
            entry.has_its_turn()

        try:
            answer = await around.queue().execute(self._demand(write_id, request, moved, folder), has_its_turn)
        except PondkeeperError:
            self._remove(folder)  # Why: what was refused before it was in the queue nobody else settles.
            raise
        finally:
            around.running.remove(write_id)
        self._committed(answer["version"])
        return LoadOutcome(
            version=answer["version"],
            counts=answer["rows_changed"],
            changes=answer.get("notes", []),
            held_s=answer["held_ms"] / 1000,
            waited_s=max(0.0, (begun_at or time.monotonic()) - asked_at),
        )

    def _stop(self, write_id: str) -> Stop:
        return lambda reason: self._around.queue().cancel(write_id, reason)

    def _demand(self, write_id: str, request: LoadRequest, plan: LoadPlan, folder: Path) -> Demand:
        return Demand(
            write_id,
            [(plan.title, None)],
            timeout_s=request.timeout_s,
            wait_s=request.wait_s,
            identity=Identity(plan.key, plan.digest),
            priority=Priority(request.priority),
            key_id=request.key_id,
            client=request.client,
            load={"plan": plan.to_wire()},
            # Why when it is settled: its client may be gone long before, and the writer still needs the files.
            on_settled=lambda: self._remove(folder),
        )

    def _remove(self, folder: Path) -> None:
        self._tasks.start(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    def stop(self) -> None:
        """Nobody waits for anything any more."""
        self._tasks.cancel()


def _linked(plan: LoadPlan, paths: DatabasePaths, folder: Path) -> LoadPlan:
    """The plan with files of its own. Raises InvalidRequest for files that no run of this home has staged.

    Why links: the writer's fence stays closed around what it may load, and a run that ends takes nothing away from it.
    """
    make_folder(folder, durable=False)
    try:
        taken = {_identity(file) for file in (paths.file, paths.wal)}
        places = {}
        for number, file in enumerate(plan.files):
            places[file] = _link(Path(file), Home(paths.home), folder / f"{number}.staged")
            # Trap: whoever closes another descriptor of the database drops DuckDB's lock on it.
            if _identity(Path(places[file])) in taken:
                raise InvalidRequest("A file of the load is the database itself.", private=file)
    except BaseException:  # Why: whatever is wrong with one of them, nobody needs the others.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return replace(plan, steps=tuple(step.with_paths(places) for step in plan.steps))


def _link(file: Path, home: Home, place: Path) -> str:
    folder, runs = file.parent.resolve(), home.runs.resolve()
    inside = folder.relative_to(runs).parts if folder.is_relative_to(runs) else ()
    if len(inside) < 2 or inside[1] != STAGING:
        raise InvalidRequest("A file of the load lies in no staging folder of a run of this keeper.", private=str(file))
    try:
        is_plain = stat.S_ISREG((folder / file.name).lstat().st_mode)
        _link_or_copy(folder / file.name, place)
    except FileNotFoundError as error:
        raise InvalidRequest("A file of the load is not there.", private=str(file)) from error
    if not (is_plain and stat.S_ISREG(place.lstat().st_mode)):
        raise InvalidRequest("A file of the load is no plain file.", private=str(file))
    return str(place)


def _link_or_copy(file: Path, place: Path) -> None:
    try:
        os.link(file, place, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(file, place, follow_symlinks=False)  # another file system, or another user's file


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino

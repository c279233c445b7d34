"""Whether the file is torn is asked before our writer opens it for the first time: a power cut amid a checkpoint can do that.

Asked again, of every block, when somebody meets damage later. What is beyond repair is not opened to be written: readers
go on with the newest snapshot, and the problem says what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from pondkeeper.databases.fencing import of_repairer, repairers_temp
from pondkeeper.errors import DatabaseBusy, DatabaseUnreadable, PondkeeperError, WorkerDied
from pondkeeper.files import swapping
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import FileState, file_state
from pondkeeper.settings import Settings
from pondkeeper.snapshots.repairing.report import WHY, swap_in
from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.spawning import ChildSpec, Template
from pondkeeper.writer.lease import KEEPER, Lease

ENTRY = "pondkeeper.snapshots.repairing.process"
OOM_SCORE_ADJ = 300
_LEASE_REASON = "looks whether the file is torn"
_log = structlog.get_logger(__name__)


class Repairs:
    """The repairs of one database. `last`: what was done the last time, by this keeper or one before it; None for never."""

    def __init__(
        self, paths: DatabasePaths, settings: Settings, template: Template, on_repaired: Callable[[dict[str, Any]], None]
    ) -> None:
        self.last: dict[str, Any] | None = None
        self._paths = paths
        self._settings = settings
        self._template = template
        self._on_repaired = on_repaired
        self._is_due = True
        self._is_thorough = False
        self._suspected: FileState | None = None
        self._refused: tuple[FileState, PondkeeperError] | None = None

    def prepare(self) -> None:
        """Look up the last repair, and remove what a dead one has left half-made. It blocks."""
        swapping.tidy(self._paths)
        done = swapping.swaps(self._paths, WHY)
        self.last = done[-1].about if done else None

    def suspects(self, error: PondkeeperError, state: FileState) -> bool:
        """Whether damage that somebody has met is to be looked into: once for each state of the file."""
        if not isinstance(error, DatabaseUnreadable) or state in (self._suspected, self._refused and self._refused[0]):
            return False
        self._suspected, self._is_due, self._is_thorough = state, True, True
        return True

    async def before_writer(self) -> None:
        """Look, and repair what is torn; at once when that was done already. Raises why the file may not be opened."""
        if not self._is_due:
            return
        state = await asyncio.to_thread(file_state, self._paths.file)
        if self._refused is not None and self._refused[0] == state:
            raise self._refused[1].again()
        lease = Lease(self._paths, who=KEEPER, why=_LEASE_REASON)
        try:
            await asyncio.to_thread(lease.acquire, 0.0)
        except DatabaseBusy:  # Why not waiting: whoever has it uses it, so it can be opened; the writer waits in line.
            return
        try:
            await self._look(state)
        finally:
            await asyncio.to_thread(lease.release)

    async def _look(self, state: FileState) -> None:
        try:
            repaired = await self._ask()
        except DatabaseBusy:  # a program without a turn has it open
            return
        except DatabaseUnreadable as error:
            self._refused = (state, error)
            raise
        self._is_due = self._is_thorough = False
        self._refused = None
        if repaired is not None:
            self.last = repaired
            _log.warning("the database file was torn and has been repaired", database=self._paths.name, **repaired)
            self._on_repaired(repaired)

    async def _ask(self) -> dict[str, Any] | None:
        """What the repairer has done; None when there was nothing to do. Raises what it answers as an error."""
        await asyncio.to_thread(make_folder, repairers_temp(self._paths))
        writer = self._settings.writer
        config = {
            "file": str(self._paths.file),
            "home": str(self._paths.home),
            "memory_limit_bytes": writer.memory_limit_bytes,
            "threads": writer.threads,
            "temp_directory": str(repairers_temp(self._paths)),
            "temp_limit_bytes": writer.temp_limit_bytes,
            "thorough": self._is_thorough,
        }
        limits = Ceiling(writer.memory_limit_bytes).rlimits
        spec = ChildSpec("repairer", ENTRY, config, limits, OOM_SCORE_ADJ, of_repairer(self._paths))
        child = await self._template.spawn(spec)
        prepared: list[swapping.Preparing] = []
        try:
            answer = await self._hear(child, prepared)
            await _end(child)  # Why first: it has a lock on the file, and the swap waits for nobody.
            if not prepared:
                return answer.get("report")
            return await asyncio.to_thread(swap_in, self._paths, prepared[0], answer["report"])
        finally:
            await _end(child)
            for preparing in prepared:
                await asyncio.to_thread(preparing.discard)

    async def _hear(self, child: Child, prepared: list[swapping.Preparing]) -> dict[str, Any]:
        """What it says last; the swap is prepared when it says that the file is torn."""
        answer = await _next(child)
        if answer["op"] == "torn":
            _log.warning("the database file is torn, and is being repaired", database=self._paths.name)
            prepared.append(await asyncio.to_thread(swapping.Preparing, self._paths, WHY))
            child.send({"op": "mend", "file": str(prepared[0].file)})
            answer = await _next(child)
        if answer["op"] == "error":
            raise PondkeeperError.from_wire(answer["error"])
        return answer


async def _next(child: Child) -> dict[str, Any]:
    try:
        answer = await child.next_frame()
    except ChildGone as gone:
        raise WorkerDied("The process that looks whether the file is torn died.", status=gone.status) from gone
    if not isinstance(answer, dict):
        raise WorkerDied("The process that looks whether the file is torn sent what it never sends.")
    return answer


async def _end(child: Child) -> None:
    child.close()
    child.kill()
    await asyncio.shield(child.exited)

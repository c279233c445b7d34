"""Ingests of one database: staged without its file, then loaded in one short turn of the queue.

A table is staged for as the keeper last saw it. If it has changed when the writer comes to load the rows, the writer says
what it is now and the body is staged again; so nothing is loaded into a table that it was not staged for.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pondkeeper.databases.fencing import of_stager, writers_temp
from pondkeeper.databases.rejects import About, Rejects
from pondkeeper.databases.requests import IngestOutcome, IngestRequest
from pondkeeper.databases.running import Running, RunningQueries
from pondkeeper.errors import (
    DatabaseUnavailable,
    OutcomeUnknown,
    PondkeeperError,
    RequestRefused,
    RowsBroken,
    TableChanged,
    WriteTimedOut,
)
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.settings import IngestSettings
from pondkeeper.staging.desk import SnapshotGone, StagingDesk
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.writer.order import Priority
from pondkeeper.writer.queue import WriteQueue
from pondkeeper.writer.write import Demand, Identity

MOST_SHAPES: Final = 1024
FRESH_WITHIN_S: Final = 5.0
Shape = dict[str, Any] | None
Where = tuple[str, str]


@dataclass(frozen=True)
class Surroundings:
    """What ingests need of their database: `snapshot(deadline)` is the path of one that has all that was promised."""

    paths: DatabasePaths
    running: RunningQueries
    queue: Callable[[], WriteQueue]
    snapshot: Callable[[float], Awaitable[str]]


@dataclass
class _Ingest:
    """One ingest on its way."""

    request: IngestRequest
    write_id: str
    folder: Path
    deadline: float
    identity: Identity | None = None
    rejects: str | None = None
    broken: list[str] = field(default_factory=list)
    is_loading: bool = False
    staging_s: float = 0.0
    stopped: list[PondkeeperError] = field(default_factory=list)

    @property
    def where(self) -> Where:
        return self.request.schema.lower(), self.request.table.lower()


class Ingests:
    """Carries out the ingests of one database."""

    def __init__(self, around: Surroundings, settings: IngestSettings, desk: StagingDesk) -> None:
        self._around = around
        self._settings = settings
        self._desk = desk
        self._fence = of_stager(around.paths)
        self._tasks = SideTasks()
        self.rejects = Rejects(around.paths.rejects, settings.rejects_keep_s)
        self._shapes: dict[Where, Shape] = {}

    def prepare(self) -> None:
        """Remove what a keeper before us has left half done; for a thread."""
        paths = self._around.paths
        for folder in (paths.incoming, paths.staging, paths.rejects):
            make_folder(folder)
        for left in paths.staging.iterdir():  # Why not the folder itself: the stagers' fence is built on it.
            shutil.rmtree(left, ignore_errors=True)
        for left in (*paths.incoming.glob("*.receiving"), *writers_temp(paths).glob("broken-*")):
            left.unlink(missing_ok=True)
        self.rejects.forget()

    async def run(self, request: IngestRequest) -> IngestOutcome:
        """Stage and load; committed and fsynced when this returns.

        Raises PondkeeperError (nothing was applied) or OutcomeUnknown. Cancelled, it is dropped unless it has begun to load.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        write_id = self._around.running.new_id()
        folder = self._around.paths.staging / secrets.token_hex(8)
        ingest = _Ingest(request, write_id, folder, loop.time() + request.timeout_s)
        entry = self._registered(ingest, task)
        try:
            return await self._carried_out(ingest, entry)
        except TimeoutError:
            message = f"The ingest did not finish within {request.timeout_s:g} s and was stopped."
            raise WriteTimedOut(message, remedy=_TIME, timeout_s=request.timeout_s) from None
        except asyncio.CancelledError:
            if ingest.stopped:
                task.uncancel()
                raise ingest.stopped[0] from None
            raise
        finally:
            self._around.running.remove(write_id)
            if not ingest.is_loading:
                self._remove(folder)

    def _registered(self, ingest: _Ingest, task: asyncio.Task[Any]) -> Running:
        def stop(reason: PondkeeperError) -> None:
            if ingest.is_loading:
                self._around.queue().cancel(ingest.write_id, reason)
            elif not ingest.stopped:
                ingest.stopped.append(reason)
                task.cancel()

        request = ingest.request
        name = self._around.paths.name
        entry = Running(ingest.write_id, "ingest", name, request.title, request.key_id, request.client, stop)
        self._around.running.add(entry)
        return entry

    async def _carried_out(self, ingest: _Ingest, entry: Running) -> IngestOutcome:
        async with asyncio.timeout_at(ingest.deadline):
            await self._made_ready(ingest)
            shape = await self._shape(ingest)
        last: PondkeeperError = TableChanged()
        while asyncio.get_running_loop().time() < ingest.deadline:
            async with asyncio.timeout_at(ingest.deadline):
                load = await self._staged(ingest, shape)
            try:
                answer = await self._loaded(ingest, load, entry)
            except TableChanged as changed:
                shape = changed.details["shape"]
                self._remember(ingest.where, shape)
                continue
            except RowsBroken as broken:
                last = broken
                await asyncio.to_thread(self._take_broken, ingest, load)
                continue
            except OutcomeUnknown:
                raise
            except PondkeeperError:
                self._drop_rejects(ingest)
                raise
            return self._outcome(ingest, load, answer)
        raise last

    async def _made_ready(self, ingest: _Ingest) -> None:
        """Its folder, with a link to its body: whoever sent that may forget it."""
        request = ingest.request

        def prepare() -> str | None:
            make_folder(ingest.folder, durable=False)
            os.link(request.body, ingest.folder / "body")
            return request.digest() if request.idempotency_key is not None else None

        digest = await asyncio.to_thread(prepare)
        if request.idempotency_key is not None and digest is not None:
            ingest.identity = Identity(request.idempotency_key, digest)
        if request.on_error == "reject":
            ingest.rejects = f"r_{digest[:16] if digest else secrets.token_hex(8)}"

    # The table

    async def _shape(self, ingest: _Ingest) -> Shape:
        """The table as it was last seen; who knows better says so later."""
        if ingest.where not in self._shapes:
            self._remember(ingest.where, await self._fresh_shape(ingest))
        return self._shapes.get(ingest.where)

    async def _fresh_shape(self, ingest: _Ingest) -> Shape:
        """The table in a snapshot that has everything that we have promised to anybody."""
        while True:
            path = await self._around.snapshot(ingest.deadline)
            with suppress(SnapshotGone):
                return await self._desk.shape(path, ingest.request.schema, ingest.request.table, self._fence)

    def _remember(self, where: Where, shape: Shape) -> None:
        if shape is None:  # Why: a table that is made meanwhile would be made again, to be refused by the writer.
            self._shapes.pop(where, None)
            return
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        self._shapes[where] = shape

    # Staging

    async def _staged(self, ingest: _Ingest, shape: Shape) -> dict[str, Any]:
        """The load for the writer. What is refused because of a table that we knew wrong is staged again."""
        began_at = time.monotonic()
        try:
            return await self._staged_for(ingest, shape)
        except RequestRefused as refused:
            now = await self._shape_after(ingest, shape, refused)
            if now == shape:
                return await self._refused(ingest, refused)
            self._remember(ingest.where, now)
            try:
                return await self._staged_for(ingest, now)
            except RequestRefused as again:
                return await self._refused(ingest, again)
        finally:
            ingest.staging_s += time.monotonic() - began_at

    async def _shape_after(self, ingest: _Ingest, shape: Shape, refused: RequestRefused) -> Shape:
        """The table now, to judge a refusal by it; when nothing can be published, the refusal stands."""
        try:
            async with asyncio.timeout(FRESH_WITHIN_S):
                return await self._fresh_shape(ingest)
        except TimeoutError:
            raise refused from None
        except PondkeeperError:
            return shape

    async def _refused(self, ingest: _Ingest, refused: RequestRefused) -> dict[str, Any]:
        """The refusal; of a repeated ingest the writer looks first whether it was applied before."""
        if ingest.identity is None:
            raise refused
        return {"refusal": refused.to_wire(with_private=True)}

    async def _staged_for(self, ingest: _Ingest, shape: Shape) -> dict[str, Any]:
        request, limits = ingest.request, self._settings
        wish = {
            "schema": request.schema,
            "table": request.table,
            "shape": shape,
            "mode": request.mode,
            "keys": request.keys,
            "create": request.create,
            "evolve": request.evolve,
        }
        job = {
            "path": str(ingest.folder / "body"),
            "format": request.format,
            "delimiter": request.delimiter,
            "has_header": request.has_header,
            "wish": wish,
            "folder": str(ingest.folder),
            "rejects": str(ingest.folder / "rejects") if ingest.rejects else None,
            "limit_bytes": limits.staging_limit_bytes,
            "max_rows": limits.max_rows,
            "threads": limits.threads,
            "broken": ingest.broken,
        }
        staged = await self._desk.stage(job, self._fence)
        rejected = staged.pop("rejected")
        staged.pop("is_as_it_came")
        if rejected and ingest.rejects:
            about = About(f"{request.schema}.{request.table}", rejected, request.key_id, request.client)
            await asyncio.to_thread(self.rejects.keep, ingest.rejects, ingest.folder / "rejects", about)
        load = {name: wish[name] for name in ("shape", "mode")} | _names(request, shape) | staged
        if ingest.rejects:
            load["broken"] = str(writers_temp(self._around.paths) / f"broken-{secrets.token_hex(8)}")
        return {"load": load, "rejected": rejected, "parts": [asdict(part) for part in request.parts]}

    # Loading

    async def _loaded(self, ingest: _Ingest, load: dict[str, Any], entry: Running) -> dict[str, Any]:
        """Wait for the turn and load. Whatever ends this, the files stay until nobody can need them."""
        loop, request, queue = asyncio.get_running_loop(), ingest.request, self._around.queue()
        left_s = max(0.001, ingest.deadline - loop.time())
        done = asyncio.Event()
        demand = Demand(
            ingest.write_id,
            [(request.title, None)],
            timeout_s=left_s,
            wait_s=left_s,
            identity=ingest.identity,
            priority=Priority(request.priority),
            key_id=request.key_id,
            client=request.client,
            load=load,
            on_settled=done.set,
        )
        ingest.is_loading = True
        too_late = WriteTimedOut("The ingest was not loaded in time and was stopped.", remedy=_TIME)
        timer = loop.call_at(ingest.deadline + 1, queue.cancel, ingest.write_id, too_late)
        try:
            answer = await queue.execute(demand, entry.has_its_turn)
        except asyncio.CancelledError:
            self._tasks.start(self._remove_after(done, ingest.folder))
            raise
        except BaseException:  # Why: whatever it was, the outcome is settled, and the files are ours again.
            ingest.is_loading = False
            raise
        else:
            ingest.is_loading = False
        finally:
            timer.cancel()
        return answer

    def _outcome(self, ingest: _Ingest, load: dict[str, Any], answer: dict[str, Any]) -> IngestOutcome:
        rows, *rest = answer["rows_changed"]
        rejected = rest[0] if rest else 0
        if "load" in load and load["load"]["new"]:
            self._shapes.pop(ingest.where, None)
        return IngestOutcome(
            version=answer["version"],
            rows=rows,
            rejected=rejected,
            rejects=ingest.rejects if rejected else None,
            staging_ms=round(ingest.staging_s * 1000, 3),
            hold_ms=answer["held_ms"],
        )

    # Files

    def _remove(self, folder: Path) -> None:
        self._tasks.start(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    async def _remove_after(self, done: asyncio.Event, folder: Path) -> None:
        await done.wait()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _take_broken(self, ingest: _Ingest, load: dict[str, Any]) -> None:
        """What the writer has found is taken to where a stager may read it: each of them may open only folders of its own."""
        mine = ingest.folder / f"broken-{len(ingest.broken)}"
        try:
            shutil.move(load["load"]["broken"], mine)
        except FileNotFoundError as error:
            raise DatabaseUnavailable("What the writer has found of the rows is gone.", private=str(error)) from error
        ingest.broken.append(str(mine))

    def _drop_rejects(self, ingest: _Ingest) -> None:
        if ingest.rejects and ingest.identity is None:  # Why: with a key the first ingest may have left it there.
            self._tasks.start(asyncio.to_thread(self.rejects.drop, ingest.rejects))

    def stop(self) -> None:
        """Nobody waits for anything any more."""
        self._tasks.cancel()


def _names(request: IngestRequest, shape: Shape) -> dict[str, str]:
    """The real names of the table, or those of the one that is to be made."""
    if shape is None:
        return {"schema": request.schema, "table": request.table}
    return {"schema": shape["schema"], "table": shape["table"]}


def body_path(paths: DatabasePaths) -> Path:
    """A new place for a body that is to be received."""
    return paths.incoming / f"{secrets.token_hex(8)}.receiving"


_TIME: Final = "Send it in smaller pieces, or raise its timeout up to the server's `ingest.timeout_s`."

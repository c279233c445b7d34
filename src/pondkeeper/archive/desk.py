"""The keeper's side of the archive: each database's newest version put in, never in anybody's way, and how far behind it is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import structlog

from pondkeeper.archive.asking import ArchiveProcess
from pondkeeper.archive.backlog import Task
from pondkeeper.archive.copies import in_utc
from pondkeeper.archive.kept import Kept
from pondkeeper.archive.lineage import lineage_of
from pondkeeper.archive.place import Place
from pondkeeper.archive.upkeep import Upkeep, read_verified
from pondkeeper.databases.archiving import Publication
from pondkeeper.databases.events import EventHub
from pondkeeper.errors import DatabaseNotFound, PondkeeperError, SnapshotNotFound
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.settings import Settings
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import Template

LOOK_S = 0.5
UPKEEP_LOOK_S = 10.0
FIRST_UPKEEP_S = 300.0
FIRST_VERSION_S = 10.0
_log = structlog.get_logger(__name__)


class ArchiverDesk:
    """Archives what is published, where `archive.to` says so; anywhere, when it is asked to (`now`)."""

    def __init__(self, settings: Settings, place: Place, home: Home) -> None:
        self.place = place
        self.is_on = bool(settings.archive.to)
        self._settings = settings.archive
        self._all_settings = settings
        self._home = home
        self._kept: dict[str, Kept] = {}
        self._tasks = SideTasks()
        self._wake = asyncio.Event()
        self._is_started = False
        self._is_stopping = False
        self.pruned_at: str | None = None

    def attach(self, template: Template, events: EventHub) -> ArchiverDesk:
        """Use these from now on: the keeper's children are forked there, and what happens is told there."""
        self._archiver = ArchiveProcess(template, "archiver", self.place, (self._home.root / "databases",))
        self.upkeep = Upkeep(template, self.place, self._home, self._all_settings)
        self._events = events
        return self

    # What the databases tell

    async def start(self, databases: list[DatabasePaths]) -> None:
        for paths in databases:
            if paths.name not in self._kept:
                verified = await asyncio.to_thread(read_verified, paths)
                self._kept[paths.name] = Kept(paths, self._settings.interval_s, verified)
        if not self._is_started:
            self._is_started = True
            self._tasks.start(self._run())
            if self.is_on:
                self._tasks.start(self._watch())
                self._tasks.start(self._keep_up())

    def published(self, name: str, publication: Publication) -> None:
        self._kept[name].backlog.published(publication, time.monotonic())
        self._wake.set()

    async def first_version(self, name: str) -> int:
        """Above all versions that the archive has of a database whose home is new. 1 where the archive cannot be asked."""
        if not self.is_on:
            return 1
        try:
            asked = self._archiver.ask({"op": "newest", "database": name})
            async with asyncio.timeout(FIRST_VERSION_S):
                newest = (await asked)["version"]
        except (TimeoutError, PondkeeperError) as error:
            _log.warning("the archive could not be asked for versions", database=name, error=str(error))
            return 1
        return (newest or 0) + 1

    def status(self, name: str) -> dict[str, Any] | None:
        kept = self._kept.get(name)
        if kept is None or not (self.is_on or kept.backlog.archived):
            return None
        archived, problem = kept.backlog.archived, kept.backlog.problem
        return {
            "is_on": self.is_on,
            "version": archived.version if archived else None,
            "created_at": in_utc(datetime.fromisoformat(archived.created_at)) if archived else None,
            "lag_s": round(kept.backlog.lag_s(time.monotonic()), 3) if self.is_on else 0.0,
            "is_behind": kept.is_behind,
            "problem": problem.to_wire() if problem else None,
            "verified": kept.verified.to_wire() if kept.verified else None,
            "pruned_at": self.pruned_at,
            "counters": asdict(kept.counters),
        }

    async def stop(self, grace_s: float) -> None:
        self._is_stopping = True
        if self._is_started and self.is_on:
            try:
                async with asyncio.timeout(grace_s):
                    await self._finish()
            except TimeoutError:
                _log.warning("the last versions were not archived in time; the next keeper does it")
        await self._tasks.end()
        for kept in self._kept.values():
            kept.settle(PondkeeperError("The keeper stops."))
        await self._archiver.stop()
        await self.upkeep.stop()

    # What people ask

    async def now(self, name: str, version: int) -> dict[str, Any]:
        """Archive this version, or a newer one, at once; what is in the archive then. Raises PondkeeperError."""
        kept = self._of(name)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept.waiters.append((version, done))
        kept.is_asked_for = True
        kept.settle(None)
        self._wake.set()
        try:
            await done
        finally:
            done.cancel()
        archived = kept.backlog.archived
        assert archived is not None
        return {"database": name, "version": archived.version, "created_at": in_utc(datetime.fromisoformat(archived.created_at))}

    async def listed(self, name: str, limit: int) -> dict[str, Any]:
        """The versions that the archive has, newest first. Raises PondkeeperError."""
        answer = await self._archiver.ask({"op": "list", "database": name, "limit": limit})
        return {key: value for key, value in answer.items() if key not in ("op", "elapsed_ms")}

    async def verify(self, name: str, version: int | None = None) -> dict[str, Any]:
        """Restore and check a version, the newest by default. Raises what is wrong with it."""
        kept = self._of(name)
        try:
            found = await self.upkeep.verify(kept.paths, version)
        except PondkeeperError as error:
            _log.error("an archived version could not be verified", version=version, **_about(kept, error))
            self._events.emit("backup_verified", name, version=version, is_good=False, problem=error.code)
            raise
        finally:
            kept.verified = await asyncio.to_thread(read_verified, kept.paths)
        self._events.emit("backup_verified", name, version=found["version"], is_good=True)
        return found

    async def prune(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove what need not be kept. Raises PondkeeperError."""
        try:
            pruned = await self.upkeep.prune(dry_run=dry_run)
        except PondkeeperError as error:
            _log.error("the archive could not be pruned", code=error.code, error=error.message, private=error.private)
            raise
        if not dry_run:
            self.pruned_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            _log.info("the archive was pruned", **pruned)
        return pruned

    def _of(self, name: str) -> Kept:
        if name not in self._kept:
            raise DatabaseNotFound(f"There is no database {name!r} here.")
        return self._kept[name]

    # The work

    async def _run(self) -> None:
        """Archive whatever is due, one database after the other, whoever has waited longest first."""
        while True:
            self._wake.clear()
            kept = self._next()
            if kept is not None:
                await self._archive(kept)
                continue
            try:
                async with asyncio.timeout(self._rest_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next(self) -> Kept | None:
        now = time.monotonic()
        due = [kept for kept in self._wanted() if self._due_in_s(kept, now) == 0.0]
        return max(due, key=lambda kept: kept.backlog.lag_s(now), default=None)

    def _rest_s(self) -> float | None:
        now = time.monotonic()
        return min((rest for kept in self._wanted() if (rest := self._due_in_s(kept, now)) is not None), default=None)

    def _wanted(self) -> list[Kept]:
        return [kept for kept in self._kept.values() if self.is_on or kept.is_asked_for]

    def _due_in_s(self, kept: Kept, now: float) -> float | None:
        due_in_s = kept.backlog.due_in_s(now)
        is_urgent = kept.is_asked_for or (self._is_stopping and kept.backlog.problem is None)
        return 0.0 if due_in_s is not None and is_urgent else due_in_s

    async def _archive(self, kept: Kept) -> None:
        """One attempt at one database. Only a fault of ours raises."""
        task = kept.backlog.begin(time.monotonic(), is_extra=kept.is_asked_for)
        kept.is_asked_for = False
        try:
            answer = await self._archiver.ask(await self._message(kept, task))
            if answer["op"] == "retired" and kept.backlog.newest is task.publication:
                raise SnapshotNotFound(f"The newest snapshot of {kept.paths.name!r} is not there any more.")
        except PondkeeperError as error:
            kept.backlog.failed(error, time.monotonic())
            kept.counters.failures += 1
            kept.settle(error)
            if kept.backlog.failures == 1 or kept.backlog.failures % 100 == 0:
                _log.warning("a version was not archived; it is tried again", **_about(kept, error))
            return
        if answer["op"] == "retired":
            kept.backlog.superseded(time.monotonic())
            kept.is_asked_for = bool(kept.waiters)
            return
        if kept.backlog.failures:
            _log.info("the archive takes versions again", database=kept.paths.name, failures=kept.backlog.failures)
        kept.backlog.done(time.monotonic())
        kept.counters.add(answer)
        kept.settle(None)
        self._events.emit("archived", kept.paths.name, version=answer["version"], bytes_put=answer["bytes_put"])

    async def _message(self, kept: Kept, task: Task) -> dict[str, Any]:
        lineage = await asyncio.to_thread(lineage_of, kept.paths)
        return {
            "op": "archive",
            "database": kept.paths.name,
            "version": task.publication.version,
            "path": task.publication.path,
            "created_at": task.publication.created_at,
            "lineage": lineage.id,
            "since": task.since,
            "changed": task.changed,
        }

    async def _finish(self) -> None:
        """Archive the last versions of those databases whose archive was in order."""
        while any(kept.backlog.is_waiting and kept.backlog.problem is None for kept in self._kept.values()):
            self._wake.set()
            await asyncio.sleep(LOOK_S / 10)

    async def _watch(self) -> None:
        """Raise the alarm when a database is too far behind, and end it when it is not any more."""
        while True:
            now = time.monotonic()
            for kept in self._kept.values():
                lag_s = kept.backlog.lag_s(now)
                if (lag_s > self._settings.max_lag_s) != kept.is_behind:
                    kept.is_behind = not kept.is_behind
                    self._tell(kept, lag_s)
            await asyncio.sleep(LOOK_S)

    async def _keep_up(self) -> None:
        """Verify each database's newest version, and prune, each in its time."""
        verify_s, prune_s = self._settings.verify_every_s, self._settings.prune_every_s
        verify_from, prune_from = (time.monotonic() + min(FIRST_UPKEEP_S, every_s) for every_s in (verify_s, prune_s))
        while verify_s or prune_s:
            await asyncio.sleep(min(UPKEEP_LOOK_S, *filter(None, (verify_s, prune_s))))
            if verify_s and time.monotonic() >= verify_from:
                await self._verify_due(verify_s)
            if prune_s and time.monotonic() >= prune_from:
                prune_from = time.monotonic() + prune_s
                with contextlib.suppress(PondkeeperError):  # told already; it is tried again when its time has come
                    await self.prune()

    async def _verify_due(self, every_s: float) -> None:
        for kept in list(self._kept.values()):
            if kept.backlog.archived and (kept.verified is None or kept.verified.is_due(every_s)):
                with contextlib.suppress(PondkeeperError):  # told already; it is due again when its time has come
                    await self.verify(kept.paths.name)

    def _tell(self, kept: Kept, lag_s: float) -> None:
        name = kept.paths.name
        if not kept.is_behind:
            _log.info("the archive has caught up", database=name)
            self._events.emit("archive_caught_up", name)
            return
        problem = kept.backlog.problem
        _log.error(
            "the archive is behind: what was committed since cannot be restored from it",
            lag_s=round(lag_s, 1), max_lag_s=self._settings.max_lag_s, **_about(kept, problem),
        )  # fmt: skip
        self._events.emit("archive_behind", name, lag_s=round(lag_s, 1), problem=problem.code if problem else None)


def _about(kept: Kept, error: PondkeeperError | None) -> dict[str, Any]:
    said: dict[str, Any] = {"database": kept.paths.name}
    if error is not None:
        said |= {"code": error.code, "error": error.message, "private": error.private, "remedy": error.remedy}
    return said

"""A database in the keeper's care: its newest snapshot for readers, its queue for writes, an eye on its file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import structlog

from pondkeeper.databases.archiving import Archiving, Publication
from pondkeeper.databases.describing import Counters, Published, describe, describe_line
from pondkeeper.databases.eye import Eye, Seen
from pondkeeper.databases.ingesting import Ingests, Surroundings
from pondkeeper.databases.line import waiting_line
from pondkeeper.databases.loading import Loads
from pondkeeper.databases.pipelining import OnAnswers, PipelinedWrites
from pondkeeper.databases.questions import question_of
from pondkeeper.databases.queueing import make_queue
from pondkeeper.databases.remembered import Remembered
from pondkeeper.databases.repairing import Repairs
from pondkeeper.databases.requests import (
    IngestOutcome,
    IngestRequest,
    ReadRequest,
    SnapshotInfo,
    WriteOutcome,
    WriteRequest,
    demand_of,
)
from pondkeeper.databases.running import Running, RunningQueries, Stop, interrupt, killer_of
from pondkeeper.databases.spooling import Spooling
from pondkeeper.databases.telling import Teller
from pondkeeper.databases.waiting import GivesUpOn, Waiters, is_any, is_lasting, is_never
from pondkeeper.errors import DatabaseBusy, DatabaseUnavailable, PondkeeperError, VersionNotReached
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import file_state
from pondkeeper.readers.answer import AnswerStream
from pondkeeper.readers.pool import Pool
from pondkeeper.readers.reader import Snapshot
from pondkeeper.settings import Settings
from pondkeeper.snapshots.desk import CopierDesk
from pondkeeper.snapshots.listing import newest_snapshot
from pondkeeper.staging.desk import StagingDesk
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import Template
from pondkeeper.writer.desk import Publishing
from pondkeeper.writer.queue import WriteQueue
from pondkeeper.writer.timings import Timings

REPUBLISH_TIMEOUT_S = 5.0
CLOSES_S = 0.1
_log = structlog.get_logger(__name__)


class Database:
    """One served database. `newest` is None until the first snapshot is there."""

    def __init__(
        self,
        paths: DatabasePaths,
        settings: Settings,
        template: Template,
        pool: Pool,
        copier: CopierDesk,
        running: RunningQueries,
        stagers: StagingDesk,
        archiving: Archiving,
    ) -> None:
        self.name = paths.name
        self.paths = paths
        self.newest: SnapshotInfo | None = None
        self.refuses_writes: PondkeeperError | None = None  # what is said where it is a replica
        self._settings = settings
        self._template = template
        self._pool = pool
        self._copier = copier
        self._archiving = archiving
        self._running = running
        self._waiters = Waiters()
        self._published_at = time.monotonic()
        self.counters = Counters()
        self._remembered = Remembered()
        self._tasks = SideTasks()
        self._queue: WriteQueue | None = None
        self._promised = 0
        around = Surroundings(paths, running, lambda: self.queue, self._promised_snapshot)
        teller = Teller(running.events, paths.name, lambda: self.queue.depth)
        seen = Seen(lambda: self.queue.desk, lambda: self.is_ready, self.problem, self._publish_changes, teller.look)
        self._eye = Eye(paths, settings.writer.foreign_poll_s, seen)
        self._has_past = paths.snapshots.exists()  # Why here: before it is served, the folder is made
        self.ingests, self.loads = Ingests(around, settings.ingest, stagers), Loads(around, self._committed)
        self.spooling = Spooling(paths, settings, running, self.ingest, self._eye.quiet, lambda: self.queue)
        self.repairs = Repairs(paths, settings, template, self._repaired)
        self._taking = asyncio.Lock()

    # Life

    async def start(self) -> None:
        """Serve the newest snapshot that exists, and publish a new one if the file has changed since."""
        newest = await asyncio.to_thread(self._prepare)
        if newest is not None:
            self._serve(newest)
            self._archiving.published(self.name, Publication(newest.version, newest.path, newest.created_at))
        published = newest.version if newest else None
        first_version = self._remembered.first_version(published, has_past=self._has_past)
        if not self._has_past:  # Why: the archive may have outlived the home, and version numbers only grow.
            first_version = max(first_version, await self._archiving.first_version(self.name))
        self._queue = self._make_queue(first_version)
        self._queue.start()
        self._tasks.start(self._eye.watch())
        self._tasks.start(self.spooling.run())

    def _prepare(self) -> SnapshotInfo | None:
        for folder in (self.paths.turn, self.paths.snapshots, self.paths.published_by_name.parent):
            make_folder(folder)
        self.ingests.prepare()
        self.repairs.prepare()
        newest = newest_snapshot(self.paths)
        self._remembered = Remembered.read(self._remembered_file)
        self._eye.known_state = self._remembered.file_state
        if newest is None:
            return None
        created_at = newest.created_at.isoformat(timespec="milliseconds")
        return SnapshotInfo(newest.version, str(newest.path), created_at, newest.size_bytes)

    def _make_queue(self, first_version: int) -> WriteQueue:
        return make_queue(
            self.paths,
            self._settings,
            self._template,
            Publishing(self._publish, self._reserve, self._failed, self.repairs.before_writer),
            next_version=first_version,
            may_make=self.newest is None,  # Why: a file that has snapshots was there, and is lost, not missing.
            known_state=self._eye.known_state or None,
        )

    async def stop(self, grace_s: float) -> None:
        """Let writes end within the grace and close the file in order."""
        self._tasks.cancel()
        await self.queue.stop(grace_s)
        self.ingests.stop()
        self.loads.stop()
        await self.spooling.stop()
        await asyncio.to_thread(self._remember_state)
        self._pool.forget(self.name)

    @property
    def queue(self) -> WriteQueue:
        if self._queue is None:
            raise DatabaseUnavailable(f"Database {self.name!r} is being opened.", retry_after_s=1)
        return self._queue

    @property
    def is_started(self) -> bool:
        return self._queue is not None

    async def is_judged_within(self, timeout_s: float) -> bool:
        """Whether in that time there is a snapshot, or a reason why there is none."""
        if self.newest is not None:
            return True
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            await self._waiters.wait(0, deadline, is_any)
        except (TimeoutError, PondkeeperError):
            return self.problem() is not None
        return True

    @property
    def is_ready(self) -> bool:
        return self.newest is not None

    # Reading

    async def query(self, request: ReadRequest) -> AnswerStream:
        """Run a query on the newest snapshot (at least `request.at_least`); returns with the head of the answer.

        The deadline covers waiting, execution and streaming. Raises PondkeeperError.
        """
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        task = asyncio.current_task()
        assert task is not None
        stopped: list[PondkeeperError] = []
        query_id = self._running.new_id()
        entry = self._register(query_id, "query", request.sql, request, lambda reason: interrupt(task, reason, stopped))
        try:
            snapshot = await self._snapshot_for(request.at_least or 0, deadline)
            question = question_of(entry, request, deadline, self._pool.limits.resources)
            stream = await self._pool.ask(question, snapshot)
        except asyncio.CancelledError as gone:
            self._running.remove(query_id, killer_of(stopped[0] if stopped else gone))
            if stopped:
                task.uncancel()
                raise stopped[0] from None
            raise
        except BaseException as error:  # Why: whatever ended it, the query does not run any more.
            self._running.remove(query_id, killer_of(error))
            raise
        entry.stop, entry.state = stream.stop, "streaming"
        stream.on_finished(lambda: self._running.remove(query_id, stream.stopped_by))
        return stream

    async def _snapshot_for(self, least: int, deadline: float) -> Snapshot:
        if self.newest is None and is_lasting(problem := self.problem()):
            raise problem
        if self.newest is None or self.newest.version < least:
            await self._wait_for(least, deadline, is_lasting if self.newest is None else is_never)
        assert self.newest is not None
        return Snapshot(self.name, self.newest.version, self.newest.path)

    async def _wait_for(self, version: int, deadline: float, gives_up_on: GivesUpOn) -> None:
        """Wait until `version` is published. Raises VersionNotReached, or why there is no snapshot at all."""
        if self._queue is not None:
            self._queue.desk.want(version)
        try:
            await self._waiters.wait(version, deadline, gives_up_on)
        except TimeoutError:
            raise self._not_reached(version) from None

    def _not_reached(self, version: int) -> PondkeeperError:
        problem = self.problem()
        if self.newest is None:
            return problem or DatabaseUnavailable(f"Database {self.name!r} has no snapshot yet.", retry_after_s=1)
        message = f"Version {version} was not published in time; the newest is {self.newest.version}."
        if problem is None:
            return VersionNotReached(message, newest_version=self.newest.version)
        return VersionNotReached(
            f"{message} {problem.message}", remedy=problem.remedy, newest_version=self.newest.version, cause=problem.code
        )

    # Writing

    async def execute(self, request: WriteRequest) -> WriteOutcome:
        """Apply one statement or an atomic list in its turn; committed and fsynced when this returns.

        Raises PondkeeperError (nothing was applied) or OutcomeUnknown.
        """
        sql = "; ".join(statement for statement, _ in request.statements)
        write_id = self._running.new_id()
        entry = self._register(write_id, "write", sql, request, lambda reason: self.queue.cancel(write_id, reason))
        try:
            answer = await self.queue.execute(demand_of(write_id, request, self._settings.writer.wait_s), entry.has_its_turn)
        except BaseException as error:  # Why: whatever ended it, the write does not run any more.
            self._running.remove(write_id, killer_of(error))
            raise
        self._running.remove(write_id)
        self._committed(answer["version"])
        return WriteOutcome(answer["version"], answer["rows_changed"])

    async def ingest(self, request: IngestRequest) -> IngestOutcome:
        """Stage the rows of a body and load them in their turn; as `Ingests.run`."""
        outcome = await self.ingests.run(request)
        self._committed(outcome.version)
        return outcome

    def _committed(self, version: int, count: int = 1) -> None:
        self.counters.commits += count
        self._promised = max(self._promised, version)

    async def _promised_snapshot(self, deadline: float) -> str:
        """The path of a snapshot that has every commit of which we have told anybody."""
        return (await self._snapshot_for(self._promised, deadline)).path

    def pipelined(self, *, key_id: str, client: str, on_answers: OnAnswers) -> PipelinedWrites:
        """The line of one connection that has many writes on their way at once."""
        return PipelinedWrites(
            self.name, self.queue, self._running, self._committed, key_id=key_id, client=client, on_answers=on_answers
        )

    def _register(
        self, query_id: str, kind: str, sql: str, request: ReadRequest | WriteRequest, stop: Stop
    ) -> Running:
        entry = Running(query_id, kind, self.name, sql, request.key_id, request.client, stop)
        self._running.add(entry)
        return entry

    # Publishing

    async def take_snapshot(self, timeout_s: float, *, only_changes: bool = False) -> SnapshotInfo:
        """Publish a new version now; with `only_changes`, not when the newest has everything that the file has.

        Raises DatabaseBusy when somebody else keeps the file for longer.
        """
        if not only_changes:
            return await self._take_snapshot(timeout_s)
        async with self._taking:  # Why: what two find changed, the first of them has published when the second looks.
            if self.newest is not None and await self._has_everything():
                return self.newest
            return await self._take_snapshot(timeout_s)

    async def _publish_changes(self) -> SnapshotInfo:
        return await self.take_snapshot(REPUBLISH_TIMEOUT_S, only_changes=True)

    async def _has_everything(self) -> bool:
        """Whether the newest snapshot has all that is in the file."""
        desk = self.queue.desk
        if not await desk.is_closed_within(CLOSES_S) or self.problem() is not None:
            return False
        state = await asyncio.to_thread(file_state, self.paths.file)
        return not desk.is_open and state == desk.closed_state

    async def _take_snapshot(self, timeout_s: float) -> SnapshotInfo:
        deadline = asyncio.get_running_loop().time() + timeout_s
        version = self.queue.desk.next_version
        await self.queue.desk.republish(timeout_s)
        try:
            await self._wait_for(version, deadline, is_any)
        except VersionNotReached:
            raise self._busy() from None
        assert self.newest is not None
        return self.newest

    def _busy(self) -> PondkeeperError:
        waiting_for = self.queue.desk.waiting_for
        if waiting_for is None:
            return self.problem() or DatabaseBusy("The snapshot was not published in time.")
        return DatabaseBusy("The snapshot was not published in time: another program has the database.", **waiting_for)

    async def _publish(self, version: int) -> None:
        """The writer has made a checkpoint: let the copier take it, then show it to everybody."""
        keep = self._settings.snapshots.keep
        report = await self._copier.publish(self.paths, version, keep, compare=self.queue.desk.others_changed_it)
        self.queue.desk.others_changed_it = False
        self.counters.published(report["bytes_copied"], report["elapsed_ms"])
        self._serve(SnapshotInfo.of_report(report))
        self._archiving.published(self.name, Publication.of_report(report))
        # Why before the next checkpoint is allowed: what that tears is taken from this snapshot.
        await self._copier.settle(self.paths)

    def _failed(self, error: PondkeeperError) -> None:
        self._waiters.failed(error)
        if self.repairs.suspects(error, self._eye.sight.state):
            self.queue.desk.kill()  # Why: its successor opens the file after somebody has looked at all of it.

    def _repaired(self, report: dict[str, Any]) -> None:
        self.counters.repairs += 1
        self.queue.desk.others_changed_it = True
        self._running.told_repaired(self.name, report)

    def _serve(self, snapshot: SnapshotInfo) -> None:
        self.newest = snapshot
        self._published_at = time.monotonic()
        self._pool.publish(Snapshot(self.name, snapshot.version, snapshot.path))
        self._waiters.published(snapshot.version)
        self._running.events.emit(
            "published", self.name, version=snapshot.version, size_bytes=snapshot.size_bytes, elapsed_ms=snapshot.elapsed_ms
        )

    async def _reserve(self, version: int) -> None:
        """Remember that `version` may be promised though it is not published, so that a restart does not go below it."""
        if not self._remembered.reserve(version, self.newest.version if self.newest else None):
            return
        try:
            await asyncio.to_thread(self._remembered.write, self._remembered_file)
        except OSError as error:  # Why: it only keeps waits for `at_least` short after two faults in a row.
            _log.warning("promised versions could not be noted", database=self.name, error=str(error))

    def _remember_state(self) -> None:
        """Note what the file looks like, if the newest snapshot holds all of it."""
        state = self.queue.desk.closed_state
        if self.newest is not None and self.problem() is None and state and state == file_state(self.paths.file):
            self._remembered.file_state = state
            self._remembered.write(self._remembered_file)

    @property
    def _remembered_file(self) -> Path:
        return self.paths.folder / "remembered.json"

    # Status

    def problem(self) -> PondkeeperError | None:
        """What keeps the database from being published, if anything."""
        error = self._queue.desk.publish_error if self._queue is not None else None
        return error.again() if error is not None else None

    def status(self) -> dict[str, Any]:
        """Everything about the database, from memory: it never waits, and is at most one look old."""
        published = Published(self.newest, time.monotonic() - self._published_at, self.counters)
        desk = self._queue.desk if self._queue is not None else None
        line = describe_line(self._queue) if self._queue is not None else {"depth": 0}
        spool = self.spooling.describe()
        beside = {"spool": spool, "archive": self._archiving.status(self.name), "repair": self.repairs.last}
        return describe(self.name, published, self._eye.sight, desk, line, self.problem()) | beside

    def timings(self) -> dict[str, dict[str, Timings]]:
        """How long was waited for a turn, and how long the lease was held, by whom; since the keeper started."""
        if self._queue is None:
            return {"waits": {}, "holds": {}}
        programs, queue = self._eye.programs, self._queue
        return {
            "waits": {"write": queue.waits, "program": programs.waits},
            "holds": {"keeper": queue.desk.holds, "program": programs.holds},
        }

    async def waiting_line(self) -> dict[str, Any]:
        """Who has the database, and all that wait for it in one order: writes, and programs with tickets; as of now."""
        await self._eye.look()
        return waiting_line(self.status(), self._queue.writes if self._queue else [], self._eye.sight.programs)

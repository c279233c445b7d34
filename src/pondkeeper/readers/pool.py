"""The pool of readers: who runs the next query, on which snapshot, and what happens when one dies."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path

import structlog

from pondkeeper.errors import DatabaseUnavailable, KeeperStopping, OutOfMemory, PondkeeperError, ReadersBusy
from pondkeeper.files.durable import make_folder
from pondkeeper.readers.answer import AnswerStream, ReaderWasDead, SnapshotGone
from pondkeeper.readers.asking import PoolLimits, Question
from pondkeeper.readers.line import RETRY_AFTER_S, Line
from pondkeeper.readers.reader import Reader, ReaderState, Snapshot
from pondkeeper.workers.brake import Brake
from pondkeeper.workers.ceiling import WATCH_INTERVAL_S
from pondkeeper.workers.child import ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.readers.process"
CATCH_UP_INTERVAL_S = 0.25
RENEW_INTERVAL_S = 2.0
UNUSED_AHEAD = 8
OOM_SCORE_ADJ = 600
BIRTH_TIMEOUT_S = 30.0
OPEN_TIMEOUT_S = 60.0
GONE_PAUSE_S = 0.01
NOBODYS = ""  # the database of readers that were born before there was any
_log = structlog.get_logger(__name__)


class Pool:
    """A fixed number of readers for all databases of the keeper, each born behind the fence of one of them.

    `fences`: what a reader of each database may open, by the database's name.
    """

    def __init__(self, template: Template, limits: PoolLimits, temp: Path, fences: Mapping[str, Fence]) -> None:
        self.limits = limits
        self._fences = dict(fences)
        self._template = template
        self._temp = temp
        self._readers: set[Reader] = set()
        self._idle: list[Reader] = []
        self._line = Line(limits.max_waiting, limits.count)
        self._running: dict[Reader, AnswerStream] = {}
        self._newest: dict[str, Snapshot] = {}
        self._tasks = SideTasks()
        self._published = asyncio.Event()
        self._unused_ahead = 0
        self._brake = Brake()
        self._stopping = False
        self.kills = 0

    # Life

    async def start(self) -> None:
        """Fork the readers; returns when all of them are ready."""
        self._tasks.start(self._watch())
        self._tasks.start(self._open_ahead())
        self._tasks.start(self._catch_up())
        births = islice(cycle(sorted(self._fences) or [NOBODYS]), self.limits.count)
        await asyncio.gather(*(self._add_reader(database) for database in births))

    def admit(self, database: str, fence: Fence) -> None:
        """One more database: readers for it are born when they are asked for."""
        self._fences[database] = fence

    async def stop(self) -> None:
        """End every reader now; running queries are cut."""
        self._stopping = True
        await self._tasks.end()
        self._line.close()
        for reader in list(self._readers):
            reader.child.kill()
        for reader in list(self._readers):
            await asyncio.shield(reader.child.exited)
            reader.child.close()

    def states(self) -> dict[str, int]:
        """How many readers are in each state."""
        counts = Counter(reader.state for reader in self._readers)
        return {state.value: counts[state] for state in ReaderState if state is not ReaderState.DEAD}

    @property
    def waiting(self) -> int:
        return len(self._line)

    # Queries

    async def ask(self, question: Question, snapshot: Snapshot) -> AnswerStream:
        """Run a query on the snapshot, or on a newer one of the same database; returns with the head of the answer.

        Raises ReadersBusy or QueueFull when no reader is free in time, and whatever the query itself raises.
        """
        self._unused_ahead, has_gone = 0, False
        while True:
            reader = await self._acquire(question, snapshot, open_already=has_gone)
            if not self._may_open(reader, snapshot.database):
                reader = await self._in_place_of(reader, snapshot.database, question.deadline)
            snapshot = self._newest.get(snapshot.database, snapshot)
            stream = AnswerStream(reader, question.query_id, snapshot.version, self.limits.kill_after_s)
            self._running[reader] = stream
            question.on_turn()
            opening = reader.open_message(snapshot, question.resources or self.limits.resources)
            try:
                await stream.begin({**question.message, "snapshot": opening}, question.deadline, question.timeout_s)
            except ReaderWasDead:
                continue
            except SnapshotGone:
                reader.snapshot, has_gone = None, True
                if asyncio.get_running_loop().time() > question.deadline:
                    raise DatabaseUnavailable("The snapshot that the query is to read has gone.", retry_after_s=1) from None
                await asyncio.sleep(GONE_PAUSE_S)
                continue
            return stream

    def publish(self, snapshot: Snapshot) -> None:
        """A new version is there: queries get it from now on, one idle reader opens it ahead of them, the others let go
        of the versions before it."""
        self._newest[snapshot.database] = snapshot
        self._unused_ahead += 1
        stale = list(filter(self._is_stale, self._idle))
        for reader in stale[:-1] if self._is_asked else stale:
            reader.let_go()
        self._published.set()

    @property
    def _is_asked(self) -> bool:
        """Whether queries have come lately, so that opening versions ahead of them is of use."""
        return self._unused_ahead <= UNUSED_AHEAD

    def forget(self, database: str) -> None:
        """The database is no longer served."""
        self._newest.pop(database, None)

    async def _acquire(self, question: Question, snapshot: Snapshot, *, open_already: bool) -> Reader:
        if self._stopping:
            raise KeeperStopping
        caller = question.caller
        self._line.asks(caller)
        if self._line.may_take(caller, len(self._idle)) and (reader := self._take_idle(snapshot.database, caller, open_already=open_already)):
            return self._given_to(reader, caller)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Reader] = loop.create_future()
        self._line.join(caller, waiter)
        try:
            return await self._in_time(waiter, min(self.limits.wait_s, question.deadline - loop.time()))
        finally:
            self._line.leave(caller, waiter)

    async def _in_time(self, waiter: asyncio.Future[Reader], wait_s: float) -> Reader:
        """The reader that is waited for; one that comes too late goes to the next. Raises ReadersBusy."""
        wait_s = max(0.0, wait_s)
        try:
            async with asyncio.timeout(wait_s):
                return await waiter
        except TimeoutError:
            if waiter.done() and not waiter.cancelled():  # Trap: a reader that comes in the last moment.
                self._hand_on(waiter.result())
            message = f"All {self.limits.count} readers were busy for {wait_s:g} s."
            raise ReadersBusy(message, retry_after_s=RETRY_AFTER_S) from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_on(waiter.result())
            raise

    def _take_idle(self, database: str, caller: str, *, open_already: bool) -> Reader | None:
        """The idle reader of the database that the caller had last: it is warm, and his. Else one that was nobody's yet, else
        the one that was not used for longest; of another database only where this one has none. `open_already`: rather one that
        has the newest version open, since its file has gone.

        Why his own: a bomb dies with its reader, and would else take the warm one of whoever asked before it. One that the
        kernel lets never go first again is rather for a caller whose queries give way anyway.
        """
        if not self._idle:
            return None
        gives_way = self._line.is_greedy(caller)

        def rank(place_and_reader: tuple[int, Reader]) -> tuple[bool, bool, bool, int, bool, int]:
            place, reader = place_and_reader
            is_there = reader.database == database
            whose = 0 if is_there and reader.last_caller == caller else 1 if reader.last_caller is None else 2
            # Why the last but of a stranger's: it is the one for which a new version is opened ahead.
            must_open = not self._has_newest(reader)
            return not is_there, open_already and must_open, reader.gives_way != gives_way, whose, must_open, place if whose == 2 else -place

        _, reader = min(enumerate(self._idle), key=rank)
        self._idle.remove(reader)
        return reader

    # Readers of one database each

    def _may_open(self, reader: Reader, database: str) -> bool:
        """Whether the reader's fence lets it at the database; where nothing fences files in, every reader may."""
        return reader.database == database or not self._template.fences_files

    async def _in_place_of(self, old: Reader, database: str, deadline: float) -> Reader:
        """A newborn reader for this database; the old one, of another, ends. The turn stays with its caller. Raises ReadersBusy.

        Why not let it open both: what hostile SQL makes of one database's reader must not reach the files of another.
        """
        loop = asyncio.get_running_loop()
        heir: asyncio.Future[Reader] = loop.create_future()
        caller = old.caller or ""
        old.is_replaced_now()
        self._tasks.start(self._refill(database, heir))
        try:
            return self._given_to(await self._in_time(heir, deadline - loop.time()), caller)
        finally:
            self._take_back(old)

    # Readers

    async def _add_reader(self, database: str, heir: asyncio.Future[Reader] | None = None) -> None:
        temp_directory = self._temp / f"reader-{uuid.uuid4().hex[:12]}"
        make_folder(temp_directory, durable=False)
        spec = ChildSpec(
            name="reader",
            entry=ENTRY,
            config={"temp_directory": str(temp_directory), "temp_limit_bytes": self.limits.temp_limit_bytes},
            limits=self.limits.ceiling.rlimits,
            oom_score_adj=OOM_SCORE_ADJ,
            fence=self._fences.get(database, Fence()).with_own(temp_directory),
        )
        reader = Reader(await self._template.spawn(spec), self._tasks, self._on_release, database)
        reader.heir = heir
        self._readers.add(reader)
        reader.child.exited.add_done_callback(lambda _: self._on_exit(reader, temp_directory))
        try:
            async with asyncio.timeout(BIRTH_TIMEOUT_S):
                await reader.child.next_frame()
        except ChildGone:
            return
        except TimeoutError:
            reader.child.kill()
            return
        reader.heir = None
        if heir is None or heir.done():
            self._hand_on(reader)
        elif reader.state is not ReaderState.DEAD:
            heir.set_result(reader)

    def _on_release(self, reader: Reader) -> None:
        self._running.pop(reader, None)
        self._take_back(reader)
        if reader.is_spent:
            reader.child.kill()
        elif not reader.child.exited.done():
            self._hand_on(reader)

    def _hand_on(self, reader: Reader) -> None:
        """Give a free reader to whose turn it is, else to the idle ones."""
        self._take_back(reader)
        if reader.state is ReaderState.DEAD:
            return
        if reader.is_spent:
            reader.child.kill()
            return
        if (turn := self._line.next(free=len(self._idle) + 1)) is not None:
            caller, waiter = turn
            self._given_to(reader, caller)
            waiter.set_result(reader)
            return
        reader.state = ReaderState.IDLE
        reader.take_turns_again()
        self._idle.append(reader)
        if self._is_stale(reader):
            reader.let_go()

    def _given_to(self, reader: Reader, caller: str) -> Reader:
        """The reader, which is now the caller's."""
        reader.state, reader.caller, reader.last_caller = ReaderState.BUSY, caller, caller
        if self._line.is_greedy(caller):
            reader.let_others_go_first()
        else:
            reader.take_turns_again()
        self._line.takes(caller)
        return reader

    def _take_back(self, reader: Reader) -> None:
        if reader.caller is not None:
            self._line.gives_back(reader.caller)
            reader.caller = None

    def _on_exit(self, reader: Reader, temp_directory: Path) -> None:
        reader.state = ReaderState.DEAD
        self._readers.discard(reader)
        if reader in self._idle:
            self._idle.remove(reader)
        self._brake.record_death(reader.started_at, was_useful=reader.was_useful)
        if self._stopping:
            return
        if not reader.is_replaced:
            self.kills += 1
            _log.info("reader ended", pid=reader.child.pid, status=reader.child.exited.result())
            self._tasks.start(self._refill(reader.database, reader.heir))
        # Why: DuckDB leaves the temp files of a killed process behind.
        self._tasks.start(asyncio.to_thread(shutil.rmtree, temp_directory, ignore_errors=True))

    async def _refill(self, database: str, heir: asyncio.Future[Reader] | None) -> None:
        """Replace a dead reader, however long it takes until that is possible again; the new one goes to `heir` first."""
        while True:
            if self._brake.delay_s:
                _log.warning("readers die at birth", next_start_in_s=self._brake.delay_s)
                await asyncio.sleep(self._brake.delay_s)
            try:
                await self._add_reader(database, heir)
                return
            except (OSError, PondkeeperError) as error:
                _log.error("a reader could not be started", error=str(error))
                self._brake.record_failure()

    async def _open_ahead(self) -> None:
        """At each publish let one idle reader, the next to be used, open the new version ahead of its query.

        Not for ever while no query comes: in a stream of commits that would be most of what the processor does.
        """
        while True:
            await self._published.wait()
            self._published.clear()
            if not self._is_asked:
                continue
            if (reader := next(filter(self._is_stale, reversed(self._idle)), None)) is not None:
                await self._open_newest(reader)

    async def _catch_up(self) -> None:
        """Let the other idle readers follow at a walk: in a stream of commits each would open every version."""
        loop = asyncio.get_running_loop()
        renewed_at = 0.0
        while True:
            await asyncio.sleep(CATCH_UP_INTERVAL_S)
            slow = next((reader for reader in self._idle if reader.cannot_go_first), None)
            if slow is not None and loop.time() - renewed_at >= RENEW_INTERVAL_S:
                renewed_at = loop.time()
                self._renew(slow)
            if self._idle and len(self._line):  # Why: one that was kept for others is for anybody when no others ask.
                self._hand_on(self._idle.pop())
            if stale := list(filter(self._is_stale, self._idle)):
                await self._open_newest(min(stale, key=lambda reader: reader.snapshot.version if reader.snapshot else 0))

    def _renew(self, reader: Reader) -> None:
        """Another reader in the place of an idle one."""
        self._idle.remove(reader)
        reader.is_replaced_now()
        self._tasks.start(self._refill(reader.database, None))

    async def _open_newest(self, reader: Reader) -> None:
        self._idle.remove(reader)
        reader.state = ReaderState.OPENING
        newest = self._newest[reader.database]
        reader.child.send({"op": "open", "snapshot": reader.open_message(newest, self.limits.resources)})
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                frame = await reader.child.next_frame()
        except ChildGone:
            return
        except TimeoutError:
            reader.child.kill()
            return
        reader.was_useful = True
        if isinstance(frame, dict) and frame["op"] != "opened":
            reader.snapshot, reader.failed_to_open = None, newest
        self._hand_on(reader)

    def _has_newest(self, reader: Reader) -> bool:
        """Whether it has the newest version open, so that it can answer even when the file has gone."""
        newest = self._newest.get(reader.database)
        return newest is not None and reader.snapshot is not None and reader.has_it_open and reader.snapshot.version >= newest.version

    def _is_stale(self, reader: Reader) -> bool:
        """Whether it should open another version ahead of the next query, and has not failed to already."""
        newest = self._newest.get(reader.database)
        if newest is None or reader.snapshot is None:
            return newest is not None and newest != reader.failed_to_open
        return newest.version > reader.snapshot.version

    async def _watch(self) -> None:
        """Watch busy readers: one above the memory ceiling is killed."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            for reader, stream in list(self._running.items()):
                rss_bytes = reader.child.rss_bytes()
                if rss_bytes > self.limits.ceiling.rss_bytes:
                    _log.warning("reader over its memory ceiling", pid=reader.child.pid, rss_bytes=rss_bytes)
                    stream.stop(OutOfMemory("The query went over the hard memory ceiling of its reader."))
                    reader.child.kill()

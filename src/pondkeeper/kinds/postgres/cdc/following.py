"""Following a source's log: what comes is gathered, and loaded while more comes; the source is told what is safe here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pondkeeper.engine.changes import Netting
from pondkeeper.errors import RunCancelled, SourceRefused, SourceUnavailable
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.postgres.cdc.applying import NETTING_MEMORY_BYTES, Applier, Target, remove_files, sizes_of
from pondkeeper.kinds.postgres.cdc.gathering import Batch, Gatherer
from pondkeeper.kinds.postgres.cdc.lsn import format_lsn
from pondkeeper.kinds.postgres.cdc.messages import Keepalive, Logged
from pondkeeper.kinds.postgres.cdc.replication import ReplicationConnection
from pondkeeper.kinds.postgres.cdc.shaping import Shaping
from pondkeeper.kinds.postgres.cdc.state import Seen, State

if TYPE_CHECKING:
    from pondkeeper.kinds.context import RunContext
    from pondkeeper.kinds.warehouse import Loaded

WAIT_S: Final = 0.2
MEMORY_BYTES: Final = 64 * 1024 * 1024
READ_AT_ONCE: Final = 5_000  # messages between two looks at the clock
SIGN_EVERY_S: Final = 5.0  # PostgreSQL ends a stream whose reader says nothing for a minute (wal_sender_timeout)
SEEN_EVERY_S: Final = 10.0
HASTY_QUESTIONS: Final = 20  # one as soon as the last was answered: the server is stopping


@dataclass
class Progress:
    """What this run has brought, over all its connections."""

    changes: int = 0
    transactions: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)  # staged bytes of each table
    load_lag_s: float = 0.0


class Follower:
    """One connection's worth of following. `state` is what the warehouse holds; it moves with every load."""

    def __init__(
        self,
        context: RunContext,
        state: State,
        seen: Seen,
        shaping: Shaping,
        target_of: Callable[[str], Target],
        progress: Progress,
        *,
        flush_every_s: float,
        until: int | None,
    ) -> None:
        self.state = state
        self._context = context
        self._seen_file = seen
        self._seen = self._noted = seen.beyond(state.slot, state.position)
        self._shaping = shaping
        self._target_of = target_of
        self._progress = progress
        self._flush_every_s = flush_every_s
        self._until = until
        self._loading: Future[Loaded] | None = None
        self._taken: Batch | None = None
        self._gatherer: Gatherer | None = None
        self._began_at: float | None = None
        self._said_at = self._noted_at = time.monotonic()
        self._questions, self._asked_at = 0, 0.0

    def follow(self, replication: ReplicationConnection, publication: str, watch: Callable[[], None]) -> None:
        """Follow until all that `until` asks for is loaded, or a table has to be copied again (`shaping.to_copy`).

        `watch` is called every few seconds. Raises PondkeeperError; a load that runs is waited for whatever happens.
        """
        folder = self._context.staging
        with (
            Netting(folder, memory_bytes=NETTING_MEMORY_BYTES, threads=2) as netting,
            ThreadPoolExecutor(1, thread_name_prefix="load") as pool,
        ):
            applier = Applier(folder, netting, self._target_of)
            starts = {name: table.start for name, table in self.state.tables.items()}
            gatherer = self._gatherer = Gatherer(
                self._shaping.shape, starts, applier.spill, self._shaping.give_up, memory_bytes=MEMORY_BYTES
            )
            try:
                replication.start(self.state.slot, publication, self.state.position)
                self._go_on(replication, gatherer, watch, lambda *load: pool.submit(self._load, applier, *load))
            except SourceRefused:
                self._context.stopping.set()  # Why: the run fails, and a load that waits for its turn must not hold that up
                raise

    def _go_on(
        self,
        replication: ReplicationConnection,
        gatherer: Gatherer,
        watch: Callable[[], None],
        begin_load: Callable[[Batch, State], Future[Loaded]],
    ) -> None:
        while not self._is_done(gatherer):
            if self._context.stopping.is_set():
                raise RunCancelled
            self._read(replication, gatherer)
            self._look_at_load()
            if self._loading is None and self._is_due(gatherer):
                self._taken = gatherer.hand_over()
                self._began_at = None
                after = self.state.moved(self._taken.position, self._shaping.captured())
                self._loading = begin_load(self._taken, after)
            self._give_signs(replication, gatherer, watch)
        self._confirm(replication, gatherer)

    def lag_s(self) -> float:
        """How long ago the oldest change was committed that is not loaded yet; 0 where there is none."""
        waiting = (self._taken, self._gatherer.waiting if self._gatherer else None)
        since = min((batch.first_commit_at for batch in waiting if batch and batch.first_commit_at), default=time.time())
        return max(0.0, round(time.time() - since, 3))

    # Reading

    def _read(self, replication: ReplicationConnection, gatherer: Gatherer) -> None:
        """Take what has come. While a load runs and enough waits behind it, the rest waits at the source."""
        if self._loading is not None and gatherer.is_full:
            self._await_load(WAIT_S)
            return
        for count, frame in enumerate(replication.frames(self._wait_s())):
            if isinstance(frame, Logged):
                if frame.message is not None:
                    gatherer.take(frame.message)
            else:
                self._heard(frame, replication, gatherer)
            if count >= READ_AT_ONCE or gatherer.is_full or (self._shaping.to_copy and not gatherer.in_transaction):
                break
        if self._began_at is None and gatherer.waiting.changes:
            self._began_at = time.monotonic()

    def _wait_s(self) -> float:
        if self._loading is not None or self._began_at is not None or self._until is not None:
            return min(WAIT_S, self._flush_every_s / 4)
        return WAIT_S

    def _heard(self, frame: Keepalive, replication: ReplicationConnection, gatherer: Gatherer) -> None:
        if not gatherer.in_transaction and not gatherer.waiting.changes and self._loading is None:
            self._seen = max(self._seen, frame.position)
        if not frame.wants_answer:
            return
        now = time.monotonic()
        self._questions = self._questions + 1 if now - self._asked_at < 1 else 1
        self._asked_at = now
        if self._questions > HASTY_QUESTIONS:
            # Why: a server that stops waits for its readers to confirm everything; it must not wait for our warehouse.
            raise SourceUnavailable("The source is stopping.")
        self._confirm(replication, gatherer)

    # Loading

    def _is_due(self, gatherer: Gatherer) -> bool:
        if self._began_at is None:
            return False
        has_reached_end = self._until is not None and gatherer.waiting.position >= self._until
        is_pressing = gatherer.is_full or has_reached_end or bool(self._shaping.to_copy)
        return is_pressing or time.monotonic() - self._began_at >= self._flush_every_s

    def _load(self, applier: Applier, batch: Batch, after: State) -> Loaded:
        """In a thread of its own: net the batch, and load it together with the state that it leads to."""
        steps = applier.steps(batch)
        identity = f"{after.slot}/{format_lsn(self.state.position)}-{format_lsn(after.position)}"
        loaded = self._context.warehouse.load(steps, identity=identity, state=after.to_json())
        self.state = after
        self._progress.sizes += sizes_of(steps)
        remove_files(steps)
        return loaded

    def _await_load(self, wait_s: float) -> None:
        assert self._loading is not None
        try:
            self._loading.exception(wait_s)
        except TimeoutError:
            return

    def _look_at_load(self) -> None:
        """Take note of a load that has ended. Raises what it raised."""
        if self._loading is None or not self._loading.done():
            return
        loaded, batch = self._loading.result(), self._taken
        assert batch is not None
        self._loading = self._taken = None
        self._seen = max(self._seen, batch.position)
        self._noted = self.state.position
        progress = self._progress
        progress.changes += batch.changes
        progress.transactions += batch.transactions
        progress.load_lag_s = max(0.0, round(time.time() - batch.first_commit_at, 3))
        for table, rows in loaded.rows.items():
            progress.rows[table] = progress.rows.get(table, 0) + rows
            self._context.table(table, progress.rows[table], progress.sizes[table])
        self._context.phase(Phase.RUNNING, "following the source's log")
        self._context.progress(progress.changes, unit="changes")

    # What the source is told

    def _give_signs(self, replication: ReplicationConnection, gatherer: Gatherer, watch: Callable[[], None]) -> None:
        now = time.monotonic()
        is_idle = self._is_idle(gatherer)
        if is_idle and gatherer.waiting.position > self._seen:  # transactions without anything for us
            self._seen = gatherer.hand_over().position
        pressing = self._until is not None and is_idle
        if now - self._said_at >= (WAIT_S if pressing else SIGN_EVERY_S):
            self._confirm(replication, gatherer, wants_answer=pressing)
            watch()

    def _is_idle(self, gatherer: Gatherer) -> bool:
        return self._loading is None and not gatherer.in_transaction and not gatherer.waiting.changes

    def _confirm(self, replication: ReplicationConnection, gatherer: Gatherer, *, wants_answer: bool = False) -> None:
        """Say up to where everything is safe: what is loaded, and what was looked through behind it."""
        position = self.state.position
        # Why not with tables that are to be copied: what was left out of them lies behind what is committed.
        if self._is_idle(gatherer) and self._seen > position and not self._shaping.to_copy:
            if self._seen > self._noted:
                self._seen_file.note(self.state.slot, position, self._seen)
                self._noted = self._seen
            position = self._seen
        replication.confirm(position, wants_answer=wants_answer)
        self._said_at = time.monotonic()

    def _is_done(self, gatherer: Gatherer) -> bool:
        if not self._is_idle(gatherer):
            return False
        return bool(self._shaping.to_copy) or (self._until is not None and max(self._seen, self.state.position) >= self._until)

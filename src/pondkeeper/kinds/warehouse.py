"""Everything that a kind of job does with the database: the same with a keeper and without one.

Reads go to snapshots and wait for nobody. Writes go through the queue of the keeper, or, where none runs, in a turn of this
process; each has an identity by which it is applied once, whoever died in between.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.engine.loads.plan import AUTOMATIC, Expected, LoadPlan, made
from pondkeeper.errors import DatabaseBusy, QueryCancelled, RequestRefused, RunCancelled, SchemaDrifted
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.files.state import file_state
from pondkeeper.jobs import drift
from pondkeeper.kinds.journal import Journal
from pondkeeper.kinds.patience import Waiting, Watcher
from pondkeeper.kinds.reach import Reach
from pondkeeper.kinds.steps import Run, Step
from pondkeeper.local.turn import take_turn
from pondkeeper.snapshots.listing import newest_version
from pondkeeper.writer.lease import Lease

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection

Parameters = Sequence[Any] | Mapping[str, Any] | None
LONGEST_WAIT_S: Final = 6 * 86_400.0
__all__ = ["Loaded", "Turn", "Warehouse", "Watcher"]


@dataclass(frozen=True)
class Loaded:
    """A committed load: the version that has it, rows by table, how long the file was held and how long it was waited for.

    `changes`: how tables were changed for the rows (drift). A load that had been committed before was held for 0 s.
    """

    version: int
    rows: dict[str, int]
    held_s: float
    waited_s: float
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Turn:
    """A turn that a program uses: the file that it may open, and a descriptor for it to inherit.

    A program that inherits `lease_fd` (`pass_fds`) keeps the lease as long as it lives, whatever becomes of this process.
    """

    file: Path
    lease_fd: int
    max_hold_s: float | None


class Warehouse:
    """The database of a job. Safe to use from several threads; `close` it at the end of the run."""

    def __init__(
        self,
        paths: DatabasePaths,
        *,
        job: str,
        run_id: str,
        staging: Path,
        watcher: Watcher,
        priority: str = "background",
    ) -> None:
        self.paths = paths
        self._job = job
        self._run_id = run_id
        self._watcher = watcher
        self._home = Home(paths.home)
        self._reach = Reach(paths, staging, priority)
        self._journal = Journal(self._home.job(job))
        self._numbers = itertools.count(1)
        self._maker = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._newest = 0
        self._has_lease = False

    # Reading

    def read(self, at_least: int | None = None) -> Connection:
        """A read-only connection to the newest snapshot, of version `at_least`; the caller closes it. Raises PondkeeperError."""
        with Waiting(self._watcher) as waiting:
            return self._reach.read(at_least, waiting)

    def query(self, sql: str, parameters: Parameters = None, *, at_least: int | None = None) -> list[tuple[Any, ...]]:
        """The rows of one reading statement on the newest snapshot."""
        from pondkeeper.engine.plain import rows_of

        with closing(self.read(at_least)) as connection:
            return rows_of(connection, sql, parameters)

    def state(self) -> dict[str, Any] | None:
        """The state that the last committed load of this job has left, whatever snapshots show; None before the first."""
        from pondkeeper.engine.loads.state import state_of

        noted = self._journal.version()
        with self._turns():
            if noted is None or newest_version(self.paths) < noted:
                with Waiting(self._watcher) as waiting:
                    noted = self._reach.publish(waiting)
                if noted is None:
                    return None
                self._journal.settle(noted)
        with closing(self.read(noted)) as connection:
            return state_of(connection, self._job)

    # Writing

    def execute(self, sql: str, parameters: Parameters = None, *, identity: str | None = None) -> int:
        """One writing statement through the queue; the version that has it. With an identity it is applied once."""
        if identity is None:  # Why one all the same: the keeper may die before it says what became of the statement.
            identity = f"{AUTOMATIC}{self._run_id}/{self._maker}-{next(self._numbers)}"
        return self.load([Run(sql, parameters)], identity=identity).version

    def load(
        self,
        steps: Sequence[Step],
        *,
        identity: str,
        state: Mapping[str, Any] | None = None,
        expected: Mapping[str, Any] | EllipsisType | None = ...,
    ) -> Loaded:
        """Carry out the steps and keep the job's new state, all in one transaction; committed when this returns.

        `identity` names this load among those of the job, for all attempts of a run (say `f"{run_id}/{batch}"`): a load
        that was committed before is not applied again, and its first outcome is the answer. `state` None: as it is.
        `expected`: the state that the job must have at that moment (None: none yet), or JobStateChanged is raised.
        Raises PondkeeperError: nothing was applied (SchemaDrifted, RunCancelled when the run is being ended …), or
        OutcomeUnknown; then the same load may be asked for again.
        """
        must_be = None if isinstance(expected, EllipsisType) else Expected(dict(expected) if expected is not None else None)
        accepted = drift.accepted(self._home, self._job)
        plan = LoadPlan.from_wire(made(self._job, identity, steps, state, accepted, must_be).to_wire())
        if self._has_lease:
            raise DatabaseBusy(
                "The run would wait for itself: it has the lease.", remedy="Load before the `with` of the lease, or after it."
            )
        with self._turns(), Waiting(self._watcher) as waiting:
            waiting.tell(None, None, None, 0)
            noted = self._journal.version()
            if not plan.is_automatic:
                self._journal.begin(identity)
            try:
                answer = self._carried_out(plan, waiting)
            except RequestRefused:
                if noted is not None:
                    self._journal.settle(noted)  # Why: it was certainly not committed.
                raise
            if not plan.is_automatic:
                self._journal.settle(answer["version"])
            waiting.held_s, waiting.version = answer["held_s"], answer["version"]
            self._newest = max(self._newest, answer["version"])
        return Loaded(
            version=answer["version"],
            rows=plan.rows(answer["counts"]),
            held_s=answer["held_s"],
            waited_s=answer["waited_s"],
            changes=answer["changes"],
        )

    def _carried_out(self, plan: LoadPlan, waiting: Waiting) -> dict[str, Any]:
        try:
            return self._reach.load(plan, waiting)
        except SchemaDrifted as drifted:
            drift.ask(self._home, self._job, drifted)
            raise
        except (QueryCancelled, DatabaseBusy) as error:
            if self._watcher.stopping.is_set():
                raise RunCancelled("The run was ended while its load waited for its turn; nothing of it was loaded.") from error
            raise

    @contextmanager
    def lease(self, why: str, max_hold_s: float | None = None) -> Iterator[Turn]:
        """A turn for a program that opens the file itself. At its end what was written is published, and the version noted.

        It ends when the block does, and when every program that has inherited it has ended. Raises RunCancelled when the run
        is ended before the turn came.
        """
        lease = Lease(self.paths, who=f"job {self._job}", why=why, max_hold_s=max_hold_s)
        with Waiting(self._watcher) as waiting:
            waiting.tell(None, None, None, 0)
            self._take(lease, waiting)
            self._has_lease = True
            began_at, before = time.monotonic(), file_state(self.paths.file)
            waiting.holding()
            try:
                yield Turn(self.paths.file, lease.fileno(), max_hold_s)
            finally:
                waiting.held_s = time.monotonic() - began_at
                self._has_lease = False
                has_changed = file_state(self.paths.file) != before
                lease.release()
                if has_changed:
                    waiting.version = self._reach.publish(waiting)

    def _take(self, lease: Lease, waiting: Waiting) -> None:
        try:
            take_turn(lease, self.paths, LONGEST_WAIT_S, on_wait=waiting.on_wait, is_cancelled=waiting.is_given_up)
        except DatabaseBusy as error:
            if self._watcher.stopping.is_set():
                raise RunCancelled("The run was ended while it waited for its turn.") from error
            raise

    def close(self) -> None:
        """See to it that what this run has written can be read: who is told that it is done looks next. Raises PondkeeperError."""
        with Waiting(self._watcher) as waiting:
            if self._reach.owes_a_snapshot:
                waiting.tell(None, "the snapshot of what was written", None, 0)
                waiting.version = self._reach.publish(waiting)
            else:
                self._reach.await_version(self._newest, waiting)

    @contextmanager
    def _turns(self) -> Iterator[None]:
        """One load at a time. Why: they are one line anyway, and the journal tells of the last."""
        with self._lock:
            yield

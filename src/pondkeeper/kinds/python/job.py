"""What a job in Python is written with: `@pondkeeper.job`, and the context that its function gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

from pondkeeper.errors import JobInvalid, PondkeeperError, RunFailed
from pondkeeper.kinds.batching import EVERY_S, SIZE, Batch
from pondkeeper.kinds.mapping import Mapped, map_in_threads
from pondkeeper.kinds.python.stage import SeenState, Stage

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection
    from pondkeeper.kinds.context import RunContext

Function = TypeVar("Function", bound=Callable[..., Any])
Item = TypeVar("Item")
Value = TypeVar("Value")
Parameters = Sequence[Any] | Mapping[str, Any] | None

MARK = "__pondkeeper_job__"
KEPT_FAILURES = 100


def job(function: Function) -> Function:
    """Make a function a job: `[jobs.NAME]` with `kind = "python"` and `function = "FILE.py:FUNCTION"` runs it.

    It is called with a JobContext and the job's `arguments` by name. It stays a function that can be called, in a test say.
    """
    setattr(function, MARK, True)
    return function


def is_job(found: object) -> bool:
    """Whether it is a function decorated with `@pondkeeper.job`."""
    return callable(found) and getattr(found, MARK, False) is True


class JobContext:
    """One attempt of a run, as the function of the job sees it. Safe to use from several threads.

    I/O outside, load inside: fetch and compute for as long as it takes, in `map` with many threads; write by `batch`, `stage`
    and `execute`, which are short transactions in the database's queue. When the run is to end (cancelled, out of time),
    `stopping` is set and `map` begins nothing new; a function that goes on all the same gets RunCancelled raised after five
    seconds, and what its batches hold is written.
    """

    def __init__(self, run: RunContext, secrets: Mapping[str, str]) -> None:
        self.name: str = run.plan.job.name
        self.run_id: str = run.plan.run_id
        self.attempt: int = run.plan.attempt
        self.home: Path = run.home_of_job
        """A folder of the job's own, which stays from run to run."""
        self.staging: Path = run.staging
        """A folder of the run's own, which is removed at its end. Parquet in it can be loaded by `stage`."""
        self.stopping: threading.Event = run.stopping
        self._run = run
        # Why a new one each time: another attempt's first write is another one, and must not pass for this attempt's.
        self._identity = f"{run.plan.run_id}/{run.plan.attempt}-{token_hex(4)}"
        self._seen = SeenState()
        self._secrets = dict(secrets)
        self._batches: list[Batch] = []
        self._failures: list[Mapped[Any, Any]] = []
        self._stages = 0
        self._lock = threading.Lock()

    # Reading

    def read(self, at_least: int | None = None) -> Connection:
        """A read-only DuckDB connection to the newest snapshot, in nobody's way however long it is open. Close it.

        `at_least`: the version that a write of this job has answered with, to see what was written.
        """
        return self._run.warehouse.read(at_least)

    def query(self, sql: str, parameters: Parameters = None, *, at_least: int | None = None) -> list[tuple[Any, ...]]:
        """The rows of one reading statement on the newest snapshot."""
        return self._run.warehouse.query(sql, parameters, at_least=at_least)

    def state(self) -> dict[str, Any] | None:
        """What the last `stage` of this job that gave a state has left, committed with its rows; None before the first.

        A later stage of this attempt that gives a state is only loaded while the job's state is still that one: what a killed
        attempt had sent may come in between, and is then not done twice.
        """
        return self._seen.note(self._run.warehouse.state())

    # Writing

    def execute(self, sql: str, parameters: Parameters = None, *, identity: str | None = None) -> int:
        """One writing statement through the queue; the version that has it. With an identity it is applied once, for ever."""
        return self._run.warehouse.execute(sql, parameters, identity=identity)

    def batch(self, sql: str, *, size: int = SIZE, every_s: float = EVERY_S) -> Batch:
        """Rows for a statement, which finds each batch of them in the relation `batch`.

            with ctx.batch("UPDATE images SET done = true FROM batch WHERE images.id = batch.id") as done:
                done.add(id=7)

        A batch is written when it has `size` rows or is `every_s` old, and what is left when the block or the run ends,
        however it ends.
        """
        with self._lock:
            identity = f"{self._identity}/batch-{len(self._batches) + 1}"
            batch = Batch(self._run.warehouse.execute, sql, identity=identity, size=size, every_s=every_s)
            self._batches.append(batch)
        return batch

    def stage(self) -> Stage:
        """Rows for tables, staged as Parquet and loaded in one transaction at the end of the block.

            with ctx.stage() as stage:
                stage.upsert("raw.orders", orders, keys=["id"])
                stage.append("raw.events", events)
        """
        with self._lock:
            self._stages += 1
            name = f"stage-{self.attempt}-{self._stages}"
        return Stage(self._run.warehouse, self.staging, name, identity=f"{self._identity}/{name}", note=self._run.table, seen=self._seen)

    # Working

    def map(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        *,
        workers: int = 16,
        total: int | None = None,
        unit: str = "items",
    ) -> Iterator[Mapped[Item, Value]]:
        """Apply the function to the items in threads, and give each as soon as it is done: `item`, and `value` or `error`.

        For what waits (HTTP, files); it shows its progress itself. `value` raises what the function raised; failures that
        nobody has looked at fail the run in the end. Not for the database: write in the loop, or by a `batch`.
        """
        total = len(items) if total is None and isinstance(items, Sized) else total
        found = map_in_threads(function, items, workers=workers, stopping=self.stopping)
        self.progress(0, total, unit=unit)
        for done, each in enumerate(found, start=1):
            if not each.was_seen and len(self._failures) < KEPT_FAILURES:
                self._failures.append(each)
            yield each
            self.progress(done, total, unit=unit)

    def progress(self, done: int, total: int | None = None, *, unit: str = "items", message: str = "") -> None:
        """So much is done; as often as one likes."""
        self._run.progress(done, total, unit=unit, message=message)

    def detail(self, **values: Any) -> None:
        """What else there is to know of this run, by name: plain data that JSON can say."""
        self._run.detail(**values)

    def say(self, text: str) -> None:
        """A line of the log; so is what is printed."""
        self._run.say(text)

    def check_stopping(self) -> None:
        """Raise RunCancelled when the run is to end: for the loops of long computations."""
        self._run.check_stopping()

    def secret(self, name: str) -> str:
        """A secret of the job, as its setting `secrets` names it; the log masks it. Raises JobInvalid."""
        from pondkeeper.jobs.secrets import reveal

        if name not in self._secrets:
            there = ", ".join(sorted(self._secrets)) or "none"
            raise JobInvalid(f"The job has no secret {name[:80]!r}; it has: {there}.", remedy="Name it in `secrets` of the job.")
        found = reveal(self._secrets[name])
        self._run.secret(found)
        return found

    def flush(self) -> None:
        """Write what all batches hold. Raises the first PondkeeperError, after it has tried all."""
        fault: PondkeeperError | None = None
        with self._lock:
            batches = list(self._batches)
        for batch in batches:
            try:
                batch.flush()
            except PondkeeperError as error:
                fault = fault or error
        if fault is not None:
            raise fault

    def refuse_unseen_failures(self) -> None:
        """Raise RunFailed for a failure in `map` that nobody has looked at."""
        for each in self._failures:
            if not each.was_seen and (error := each.error) is not None:
                raise RunFailed(f"A function of `map` failed, and nobody looked: {type(error).__name__}: {error}") from error

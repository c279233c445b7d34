"""Everything that a kind of job does with the database: the same with a keeper and without one.

Reads go to snapshots and wait for nobody. Writes go through the queue of the keeper, or, where none runs, in a turn of this
process; each has an identity by which it is applied once, whoever died in between.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pondkeeper.files.paths import DatabasePaths
from pondkeeper.kinds.steps import Step

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection

Parameters = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True)
class Loaded:
    """A committed load: the version that has it, rows by table, how long the file was held and how long it was waited for."""

    version: int
    rows: dict[str, int]
    held_s: float
    waited_s: float
    drift: dict[str, list[str]] = field(default_factory=dict)


class Watcher(Protocol):
    """Who is told how a write gets on: the run, whose status shows it. Called from any thread; must not wait."""

    stopping: threading.Event

    def waiting(self, lease: dict[str, Any]) -> None:
        """The turn is waited for: `holder`, `why`, `since`, `waiting_since`, `position`. Again when it changes."""

    def holding(self) -> None:
        """The turn has come: the load runs, or the program may open the file."""

    def released(self, held_s: float, version: int | None) -> None:
        """The turn is over: how long the file was held, and the version that has what was written (None: nothing was)."""


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

    def __init__(self, paths: DatabasePaths, *, job: str, run_id: str, staging: Path, watcher: Watcher) -> None:
        self.paths = paths
        self._job = job
        self._run_id = run_id
        self._staging = staging
        self._watcher = watcher

    def read(self, at_least: int | None = None) -> Connection:
        """A read-only connection to the newest snapshot, of version `at_least`; the caller closes it. Raises PondkeeperError."""
        raise NotImplementedError

    def query(self, sql: str, parameters: Parameters = None, *, at_least: int | None = None) -> list[tuple[Any, ...]]:
        """The rows of one reading statement on the newest snapshot."""
        raise NotImplementedError

    def execute(self, sql: str, parameters: Parameters = None, *, identity: str | None = None) -> int:
        """One writing statement through the queue; the version that has it. With an identity it is applied once."""
        raise NotImplementedError

    def load(self, steps: Sequence[Step], *, identity: str, state: Mapping[str, Any] | None = None) -> Loaded:
        """Carry out the steps and keep the job's new state, all in one transaction; committed when this returns.

        `identity` names this load among those of the job, for all attempts of a run (say `f"{run_id}/{batch}"`): a load
        that was committed before is not applied again, and its first outcome is the answer. `state` None: as it is.
        Raises PondkeeperError: nothing was applied (SchemaDrifted, EmptySource, RunCancelled when the run is being ended…).
        """
        raise NotImplementedError

    def state(self) -> dict[str, Any] | None:
        """The state that the last committed load of this job has left, whatever snapshots show; None before the first."""
        raise NotImplementedError

    @contextmanager
    def lease(self, why: str, max_hold_s: float | None = None) -> Iterator[Turn]:
        """A turn for a program that opens the file itself. At its end what was written is published, and the version noted."""
        raise NotImplementedError
        yield

    def close(self) -> None:
        """Publish what this run has written and nobody has published, where no keeper does that. Raises PondkeeperError."""

"""A database that is a replica here: read from the versions that its follower brings, never written."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec
import structlog

from pondkeeper.archive.replica.following import Following, Source
from pondkeeper.databases.archiving import Publication
from pondkeeper.databases.database import Database
from pondkeeper.databases.line import waiting_line
from pondkeeper.databases.requests import ReadRequest, SnapshotInfo
from pondkeeper.databases.waiting import GivesUpOn, is_any
from pondkeeper.errors import (
    DatabaseIsReplica,
    DatabaseUnavailable,
    PondkeeperError,
    ReplicaDiverged,
    VersionNotReached,
)
from pondkeeper.files.durable import make_folder, write_atomic

if TYPE_CHECKING:
    from pondkeeper.readers.answer import AnswerStream
    from pondkeeper.writer.queue import WriteQueue

IN_TOUCH_S: Final = 5.0
"""A primary that has answered so lately is taken to be alive."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ReplicaConfig:
    """How a replica follows. `replica`: this keeper's name for itself at the primary."""

    source: Source
    replica: str
    keep: int
    interval_s: float


class Replica(Database):
    """A database without a file and without a writer: its versions come from a primary, or from an archive."""

    def follow(self, config: ReplicaConfig) -> Replica:
        """What it follows; to be said once, before `start`."""
        self.source = config.source
        self.lineage = ""
        self._as_of: float | None = None
        self._problem: PondkeeperError | None = None
        follower = {"replica": config.replica, "keep": config.keep, "interval_s": config.interval_s}
        self._following = Following(self.paths, self._template, self.source, follower, self._heard, self._cannot_follow)
        self._is_begun = False
        self.refuses_writes = DatabaseIsReplica(
            f"Database {self.name!r} is a replica of {self.source.address}; it is written there.",
            primary=self.source.address,
        )
        return self

    # Life

    async def start(self) -> None:
        """Follow. What an earlier keeper has left is served as soon as it is proved to be whole."""
        await asyncio.to_thread(self._prepare)
        self._is_begun = True
        self._following.start()

    def _prepare(self) -> None:
        for folder in (self.paths.turn, self.paths.snapshots, self.paths.published_by_name.parent):
            make_folder(folder)
        # Why: a program on this machine that asks for its turn is told that there is nothing to write.
        write_atomic(self.paths.replica_json, msgspec.json.encode({"of": self.source.address}))

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002  Why: nothing is under way that could be lost
        """Follow no more."""
        await self._following.stop()
        self._pool.forget(self.name)

    async def pause(self) -> None:
        """Follow no more for now, and go on answering from what is here; `resume` follows again."""
        await self._following.stop()

    def resume(self) -> None:
        self._following.start()

    @property
    def is_started(self) -> bool:
        return self._is_begun

    @property
    def queue(self) -> WriteQueue:
        """There is none. Raises DatabaseIsReplica."""
        self._refuse()

    @property
    def is_in_touch(self) -> bool:
        """Whether the primary answered lately."""
        return self._problem is None and self._as_of is not None and time.monotonic() - self._as_of < IN_TOUCH_S

    @property
    def lag_s(self) -> float | None:
        """Everything that was published there until so many seconds ago is here; None while that is not known."""
        return None if self._as_of is None or self.newest is None else max(0.0, time.monotonic() - self._as_of)

    @property
    def follower_pid(self) -> int | None:
        return self._following.pid

    def _refuse(self) -> NoReturn:
        assert self.refuses_writes is not None
        raise self.refuses_writes.again()

    # What the follower says

    def _heard(self, message: dict[str, Any]) -> None:
        kind = message["op"]
        if kind == "whole":
            if message["snapshot"] is not None:
                self._show(message["snapshot"])
        elif kind == "published":
            self.lineage = message["lineage"]
            self.counters.published(message["snapshot"]["bytes_copied"], message["snapshot"]["elapsed_ms"])
            self._confirm(message["as_of"])
            self._show(message["snapshot"])
        elif kind == "current":
            self._confirm(message["as_of"])
        elif kind == "problem":
            self._cannot_follow(PondkeeperError.from_wire(message["error"]))
        elif kind == "damaged":
            _log.error("a snapshot of the replica was damaged, and was removed", database=self.name, version=message["version"])

    def _show(self, described: dict[str, Any]) -> None:
        """Serve it, unless it is what is served already."""
        snapshot = SnapshotInfo.of_report(described)
        if self.newest is not None and self.newest.version == snapshot.version:
            return
        self._serve(snapshot)
        self._archiving.published(self.name, msgspec.convert(described, Publication))

    def _confirm(self, as_of: float) -> None:
        """At that time what we have was the newest there."""
        self._as_of = max(as_of, self._as_of or 0.0)
        if self._problem is not None:
            _log.info("the replica is in touch with its primary again", database=self.name, primary=self.source.address)
            self._problem = None

    def _cannot_follow(self, error: PondkeeperError) -> None:
        if self._problem is None or self._problem.code != error.code:
            _log.warning("the replica cannot follow", database=self.name, error=error.to_wire(with_private=True))
        self._problem = error
        self._waiters.failed(error)

    # Reading

    async def query(self, request: ReadRequest) -> AnswerStream:
        """As of any database; the answer says how far behind it is."""
        stream = await super().query(request)
        stream.lag_s = self.lag_s
        return stream

    async def _wait_for(self, version: int, deadline: float, gives_up_on: GivesUpOn) -> None:  # noqa: ARG002  Why: here every fault may last
        """Wait until `version` has come. Refused at once while the primary cannot be asked: nobody knows when it will be."""
        if self._problem is not None and self.newest is not None:
            raise self._not_reached(version)
        try:
            await self._waiters.wait(version, deadline, is_any)
        except (TimeoutError, PondkeeperError):
            raise self._not_reached(version) from None

    def _not_reached(self, version: int) -> PondkeeperError:
        """Why not, with the lag."""
        if self.newest is None:
            return self.problem() or DatabaseUnavailable(
                f"Replica {self.name!r} has not got a first version yet.", retry_after_s=1, primary=self.source.address
            )
        lag_s = self.lag_s
        told = "and has not reached its primary yet" if lag_s is None else f"which was the newest there {lag_s:.1f} s ago"
        message = f"Version {version} has not come to this replica: it has {self.newest.version}, {told}."
        details: dict[str, Any] = {"newest_version": self.newest.version, "lag_s": lag_s, "primary": self.source.address}
        if self._problem is not None:
            details["cause"] = self._problem.code
            message = f"{message} {self._problem.message}"
        return VersionNotReached(message, remedy="Ask again later, or ask the primary.", **details)

    # Status

    def problem(self) -> PondkeeperError | None:
        """What keeps it from following, if anything."""
        return self._problem.again() if self._problem is not None else None

    def status(self) -> dict[str, Any]:
        """As of any database, with what it is a replica of and how far behind."""
        lag_s = self.lag_s
        replica = {
            "of": self.source.address,
            "state": self._state(),
            "lag_s": None if lag_s is None else round(lag_s, 3),
            "lineage": self.lineage or None,
            "follower_pid": self.follower_pid,
        }
        return super().status() | {"replica": replica}

    def _state(self) -> str:
        if isinstance(self._problem, ReplicaDiverged):
            return "diverged"
        if self._problem is not None:
            return "cut off"
        return "starting" if self._as_of is None else "following"

    async def waiting_line(self) -> dict[str, Any]:
        """Nobody waits to write here."""
        return waiting_line(self.status(), [], [])

"""The way to the database: through the keeper that serves it, or in turns of one's own where none does.

A keeper that is gone is waited for, for a while: who started it will start it again. After that its place is empty, and a
load takes a turn of its own; the record of its identity in the database settles whether the dead keeper had applied it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.client.loads import LoadsClient
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.errors import (
    AnswerIncomplete,
    DatabaseBusy,
    DatabaseMissing,
    KeeperNotAnswering,
    KeeperNotRunning,
    KeeperStopping,
    OutcomeUnknown,
    PondkeeperError,
    SnapshotNotFound,
    VersionNotReached,
)
from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.kinds.patience import Waiting
from pondkeeper.kinds.through_keeper import load_through
from pondkeeper.local.known import serving_home
from pondkeeper.local.reading import read
from pondkeeper.snapshots.listing import newest_version

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection

KEEPER_BACK_S: Final = 10.0
LOST_FOR_S: Final = 600.0
READ_WAIT_S: Final = 120.0
PUBLISH_WAIT_S: Final = 600.0
PUBLISHED_WITHIN_S: Final = 30.0
_LEAST_PAUSE_S: Final = 0.05
_MOST_PAUSE_S: Final = 1.0
_GONE: Final = "the keeper is gone, and the next one is waited for"
# The keeper is gone or going, or nobody knows what became of the request: the next one is asked the same.
_LOST: Final = (KeeperNotRunning, KeeperStopping, KeeperNotAnswering, OutcomeUnknown, AnswerIncomplete)


class Reach:
    """How one run reaches its database."""

    def __init__(self, paths: DatabasePaths, staging: Path, priority: str) -> None:
        self._paths = paths
        self._staging = staging
        self._priority = priority
        self._keeper_seen_at: float | None = None
        self.owes_a_snapshot = False
        self._keeper()

    def _keeper(self) -> Home | None:
        """The home of the keeper that serves the database now."""
        home = serving_home(self._paths)
        if home is not None:
            self._keeper_seen_at = time.monotonic()
        return home

    def _may_come_back(self) -> bool:
        """Whether a keeper was there so lately that its successor is waited for."""
        return self._keeper_seen_at is not None and time.monotonic() - self._keeper_seen_at < KEEPER_BACK_S

    # Loads

    def load(self, plan: LoadPlan, waiting: Waiting) -> dict[str, Any]:
        """`version`, `counts`, `changes`, `held_s`, `waited_s`. Raises PondkeeperError."""
        asked_at, patience = time.monotonic(), _Lost()
        while True:
            home = self._keeper()
            try:
                if home is not None:
                    answer = load_through(home.root, self._paths.name, plan, self._priority, waiting)
                    self._keeper_seen_at = time.monotonic()
                elif self._may_come_back():
                    waiting.tell(None, _GONE, None, 0)
                    patience.pause(waiting)
                    continue
                else:
                    answer = self._alone(plan, waiting)
            except PondkeeperError as error:
                patience.wait_or_raise(error, waiting)
                continue
            return answer | {"waited_s": max(0.0, time.monotonic() - asked_at - answer["held_s"])}

    def _alone(self, plan: LoadPlan, waiting: Waiting) -> dict[str, Any]:
        from pondkeeper.kinds.without_keeper import load  # Why here: a run beside a keeper is saved 90 ms of imports.

        self.owes_a_snapshot = True
        return load(self._paths, plan, self._staging, waiting)

    # Snapshots

    def read(self, at_least: int | None, waiting: Waiting) -> Connection:
        """A connection to the newest snapshot, of that version at least. Raises PondkeeperError."""
        give_up_at = time.monotonic() + READ_WAIT_S
        while True:
            if self._keeper() is None and not self._may_come_back() and self._is_to_be_made(at_least):
                self.publish(waiting)
            left_s = max(0.0, give_up_at - time.monotonic())
            try:
                return read(self._paths.file, at_least=at_least, wait_s=left_s)
            except (SnapshotNotFound, VersionNotReached):
                if left_s == 0.0 or not self._may_come_back() or waiting.is_given_up():
                    raise
                time.sleep(_LEAST_PAUSE_S)  # the keeper has just gone: its successor, or a turn of our own, makes it

    def _is_to_be_made(self, at_least: int | None) -> bool:
        """Whether a snapshot of now is to be made before one is read, where no keeper does it.

        While a program has the lease, whatever it writes is not for us to wait for.
        """
        from pondkeeper.kinds.without_keeper import has_everything

        if not self._paths.file.exists() or has_everything(self._paths):
            return False
        return self.owes_a_snapshot or at_least is not None or not is_flocked(self._paths.lease_lock)

    def publish(self, waiting: Waiting) -> int | None:
        """The version of a snapshot that has everything that is in the file; None where there is no file yet.

        Waits for programs that have the file. Raises PondkeeperError.
        """
        patience = _Lost(PUBLISH_WAIT_S)
        while True:
            home = self._keeper()
            try:
                if home is not None:
                    with LoadsClient(home.root) as client:
                        version = client.publish(self._paths.name)
                elif self._may_come_back():
                    waiting.tell(None, _GONE, None, 0)
                    patience.pause(waiting)
                    continue
                else:
                    version = self._published_alone(waiting)
            except DatabaseMissing:
                return None
            except PondkeeperError as error:
                patience.wait_or_raise(error, waiting)
                continue
            self.owes_a_snapshot = False
            return version

    def _published_alone(self, waiting: Waiting) -> int:
        from pondkeeper.kinds.without_keeper import publish

        return publish(self._paths, waiting)

    def await_version(self, version: int, waiting: Waiting) -> None:
        """Wait until the keeper has published a version; not for long, since it does so anyway."""
        give_up_at = time.monotonic() + PUBLISHED_WITHIN_S
        while newest_version(self._paths) < version and time.monotonic() < give_up_at:
            if self._keeper() is None or waiting.is_given_up():
                return
            time.sleep(_LEAST_PAUSE_S / 5)


class _Lost:
    """Asking again, ever more patiently, until it was in vain for too long."""

    def __init__(self, for_s: float = LOST_FOR_S) -> None:
        self._give_up_at = time.monotonic() + for_s
        self._pause_s = _LEAST_PAUSE_S

    def wait_or_raise(self, error: PondkeeperError, waiting: Waiting) -> None:
        """Wait before the next try; raise the error when that is what is to be said."""
        is_passing = isinstance(error, (*_LOST, DatabaseBusy)) or "retry_after_s" in error.details
        if not is_passing or time.monotonic() > self._give_up_at or waiting.is_given_up():
            raise error
        self.pause(waiting)

    def pause(self, waiting: Waiting) -> None:
        """Wait a moment. Raises DatabaseBusy when the run is to end."""
        if waiting.is_given_up():
            raise DatabaseBusy("No keeper came, and the run is to end.")
        time.sleep(self._pause_s)
        self._pause_s = min(_MOST_PAUSE_S, 2 * self._pause_s)

"""The lease: the right to write a database. flock decides who holds it; the JSON beside it only says who and why."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import msgspec

from pondkeeper.errors import DatabaseBusy
from pondkeeper.files import swapping
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.locks import FlockFile, is_flocked
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer import tickets

POLL_S = 0.01
LONGEST_POLL_S = 0.2
TELL_EVERY_S = 1.0
FLICKER_S = 2.0
KEEPER = "keeper"
KEEPERS_REASON = "writes through the queue"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and why, and since when (ISO 8601, UTC), and for how long at most, where that is limited."""

    pid: int
    who: str
    why: str
    since: str
    host: str
    max_hold_s: float | None = None

    def describe(self) -> str:
        """For people: `dbt build (pid 4711) since 12:00:03, for: nightly build`."""
        return f"{self.who} (pid {self.pid}) since {self.since}" + (f", for: {self.why}" if self.why else "")


OnWait = Callable[[Holder | None, int], None]


class Lease:
    """One program's use of the right to write: `acquire`, work, `release`."""

    def __init__(self, paths: DatabasePaths, who: str, why: str, max_hold_s: float | None = None) -> None:
        self._paths = paths
        self._who = who
        self._why = why
        self._max_hold_s = max_hold_s
        make_folder(paths.turn)
        self._lock = FlockFile(paths.lease_lock)

    @property
    def held(self) -> bool:
        return self._lock.held

    def fileno(self) -> int:
        """The flock's descriptor: a program that inherits it keeps the lease as long as it lives."""
        return self._lock.fileno()

    def acquire(
        self,
        timeout_s: float,
        on_wait: OnWait | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        asked_ns: int | None = None,
    ) -> None:
        """Wait for the turn and take the lease. Raises DatabaseBusy, naming the holder, when `timeout_s` is over.

        `on_wait(holder, ahead)` is called at once when there is something to wait for, and then every second.
        `asked_ns`: since when the turn is waited for, if that was not now.
        """
        deadline = time.monotonic() + timeout_s
        tell_at = 0.0
        ticket = tickets.Ticket(self._paths.tickets, self._who, self._why, asked_ns)
        try:
            while (ahead := ticket.ahead()) or not self._lock.try_acquire():
                now = time.monotonic()
                if is_cancelled() or now >= deadline:
                    self._give_up(ahead, is_late=is_cancelled() or now >= deadline + FLICKER_S)
                if on_wait is not None and now >= tell_at:
                    on_wait(current_holder(self._paths), ahead)
                    tell_at = now + TELL_EVERY_S
                time.sleep(min(POLL_S * max(1, ahead), LONGEST_POLL_S))
            self._sign()
            self._finish_swap()
        finally:
            ticket.drop()

    def _give_up(self, ahead: int, *, is_late: bool) -> None:
        """Raise DatabaseBusy; not yet when nobody has the lease: somebody only asked whether it is free."""
        holder = current_holder(self._paths)
        if is_late or ahead or holder is not None:
            raise _busy(holder, tickets.places(self._paths.tickets)[:ahead])

    def _sign(self) -> None:
        holder = Holder(
            pid=os.getpid(),
            who=self._who,
            why=self._why,
            since=datetime.now(UTC).isoformat(timespec="milliseconds"),
            host=socket.gethostname(),
            max_hold_s=self._max_hold_s,
        )
        write_atomic(self._paths.lease_json, msgspec.json.encode(asdict(holder)))

    def _finish_swap(self) -> None:
        """Nobody opens a file whose replacement a dead process has begun and not ended."""
        try:
            swapping.finish(self._paths)
        except BaseException:  # Why: whatever keeps it from being ended, a lease that is not used must not be held.
            self.release()
            raise

    def release(self, *, from_all: bool = False) -> None:
        """Give the lease back; safe to call when it is not held.

        Programs that inherited it keep it until they end, but for `from_all`: then nobody has it any more.
        """
        if self._lock.held:
            self._paths.lease_json.unlink(missing_ok=True)
            self._lock.release(from_all=from_all)

    def disown(self) -> None:
        """In a forked child: close the inherited descriptor; the lease stays with the parent."""
        self._lock.release()


def current_holder(paths: DatabasePaths) -> Holder | None:
    """Who holds the lease now; None when nobody does. What a dead holder has left beside the lock is removed."""
    if not is_flocked(paths.lease_lock):
        if paths.lease_json.exists():
            _forget_dead_holder(paths)
        return None
    try:
        return msgspec.json.decode(paths.lease_json.read_bytes(), type=Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return Holder(pid=-1, who="a program that has just taken it", why="", since="now", host="")


def _forget_dead_holder(paths: DatabasePaths) -> None:
    """Remove the JSON of a holder that was killed. Why under the lock: a new holder may sign at this moment."""
    with FlockFile(paths.lease_lock) as lock:
        if lock.try_acquire():
            paths.lease_json.unlink(missing_ok=True)


def waiting_count(paths: DatabasePaths) -> int:
    """How many programs wait for the lease."""
    return len(tickets.waiting(paths.tickets))


def _busy(holder: Holder | None, before: list[tickets.Place]) -> DatabaseBusy:
    line = f"{len(before)} {'program waits' if len(before) == 1 else 'programs wait'} before this one"
    if holder is not None:
        message = f"The lease is held by {holder.describe()}; it was not given back in time"
        message += f", and {line}." if before else "."
    else:
        message = f"{line}, first {before[0].describe()}." if before else "The lease could not be had in time."
    return DatabaseBusy(message, holder=asdict(holder) if holder else None, waiting_before=len(before))

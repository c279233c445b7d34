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
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.locks import FlockFile, is_flocked
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer import tickets

POLL_S = 0.01
TELL_EVERY_S = 1.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and why, and since when (ISO 8601, UTC)."""

    pid: int
    who: str
    why: str
    since: str
    host: str

    def describe(self) -> str:
        """For people: `dbt build (pid 4711) since 12:00:03, for: nightly build`."""
        return f"{self.who} (pid {self.pid}) since {self.since}" + (f", for: {self.why}" if self.why else "")


OnWait = Callable[[Holder | None, int], None]


class Lease:
    """One program's use of the right to write: `acquire`, work, `release`."""

    def __init__(self, paths: DatabasePaths, who: str, why: str) -> None:
        self._paths = paths
        self._who = who
        self._why = why
        make_folder(paths.turn)
        self._lock = FlockFile(paths.lease_lock)

    @property
    def held(self) -> bool:
        return self._lock.held

    def fileno(self) -> int:
        """The flock's descriptor: a program that inherits it keeps the lease as long as it lives."""
        return self._lock.fileno()

    def acquire(
        self, timeout_s: float, on_wait: OnWait | None = None, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait for the turn and take the lease. Raises DatabaseBusy, naming the holder, when `timeout_s` is over.

        `on_wait(holder, ahead)` is called at once when there is something to wait for, and then every second.
        """
        deadline = time.monotonic() + timeout_s
        tell_at = 0.0
        ticket = tickets.Ticket(self._paths.tickets)
        try:
            while (ahead := ticket.ahead()) or not self._lock.try_acquire():
                now = time.monotonic()
                if now >= deadline or is_cancelled():
                    raise _busy(current_holder(self._paths), ahead)
                if on_wait is not None and now >= tell_at:
                    on_wait(current_holder(self._paths), ahead)
                    tell_at = now + TELL_EVERY_S
                time.sleep(POLL_S)
            self._sign()
        finally:
            ticket.drop()

    def _sign(self) -> None:
        holder = Holder(
            pid=os.getpid(),
            who=self._who,
            why=self._why,
            since=datetime.now(UTC).isoformat(timespec="milliseconds"),
            host=socket.gethostname(),
        )
        write_atomic(self._paths.lease_json, msgspec.json.encode(asdict(holder)))

    def release(self) -> None:
        """Give the lease back; safe to call when it is not held."""
        if self._lock.held:
            self._paths.lease_json.unlink(missing_ok=True)
            self._lock.release()


def current_holder(paths: DatabasePaths) -> Holder | None:
    """Who holds the lease now; None when nobody does, whatever the JSON says."""
    if not is_flocked(paths.lease_lock):
        return None
    try:
        return msgspec.json.decode(paths.lease_json.read_bytes(), type=Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return Holder(pid=-1, who="a program that has just taken it", why="", since="now", host="")


def waiting_count(paths: DatabasePaths) -> int:
    """How many programs wait for the lease."""
    return len(tickets.waiting(paths.tickets))


def _busy(holder: Holder | None, ahead: int) -> DatabaseBusy:
    if holder is None:
        return DatabaseBusy(f"{ahead} programs were before this one in the queue until its time was over.", waiting_before=ahead)
    message = f"The lease is held by {holder.describe()}; it was not given back in time."
    return DatabaseBusy(message, holder=asdict(holder), waiting_before=ahead)

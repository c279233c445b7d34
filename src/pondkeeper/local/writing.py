"""`pondkeeper.write`: a database to oneself, in one's turn, as a plain read-write DuckDB connection."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pondkeeper.errors import DatabaseBusy, PondkeeperError, StatementFailed
from pondkeeper.files.locks import program_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.local.known import database_of
from pondkeeper.local.publishing import publish
from pondkeeper.local.turn import Tell, is_open_here, refuse_if_open_here, take_away, take_turn
from pondkeeper.writer.lease import Lease

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection

WAIT_S = 300.0
OPEN_POLL_S = 0.05

_turns: dict[Path, tuple[int, Lease]] = {}
"""Databases that this process has in `write`, each with its thread and its lease."""


def write(
    database: str | os.PathLike[str] | None = None,
    *,
    home: str | os.PathLike[str] | None = None,
    wait_s: float = WAIT_S,
    reason: str = "",
    create: bool = False,
    on_wait: Tell = lambda text: None,
) -> WriteTurn:
    """A database to oneself: `with pondkeeper.write("warehouse.duckdb", reason="nightly load") as con: …`.

    `database` is a file, or a name in `home` (by default the `.pondkeeper/` of the working folder or above it); it is
    not needed where there is one. It waits for its turn for `wait_s` and raises DatabaseBusy, which names the holder.
    `on_wait` is told who is waited for: pass `print` in a notebook.

    In the block, each statement commits by itself unless one says BEGIN. At its end the file is closed, the lease given
    back, and what was committed is published: `version` of the turn names the snapshot. An exception keeps what was
    committed before it; an open transaction is rolled back, and where there was no exception that raises
    StatementFailed.
    """
    paths = database_of(database, home, may_miss=create)
    return WriteTurn(paths, wait_s=wait_s, reason=reason, on_wait=on_wait)


class WriteTurn:
    """One turn as a context manager; it can be used once. `version` is None where no keeper has published it."""

    def __init__(self, paths: DatabasePaths, *, wait_s: float, reason: str, on_wait: Tell) -> None:
        self.version: int | None = None
        self._paths = paths
        self._wait_s = wait_s
        self._reason = reason
        self._on_wait = on_wait
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        self._refuse_to_wait_for_myself()
        deadline = time.monotonic() + self._wait_s
        lease = Lease(self._paths, who=program_of(os.getpid()), why=self._reason)
        take_turn(lease, self._paths, self._wait_s, self._on_wait)
        # Why before the file is opened, and until it is closed: to another thread it must not look like a connection of nobody's turn.
        _turns[self._paths.file] = (threading.get_ident(), lease)
        try:
            self._connection = self._open(deadline)
        except BaseException:  # Why: whatever ended it, nobody may wait for a lease that is not used.
            del _turns[self._paths.file]
            lease.release(from_all=True)
            raise
        return self._connection

    def _refuse_to_wait_for_myself(self) -> None:
        turn = _turns.get(self._paths.file)
        if turn is None:
            refuse_if_open_here(self._paths)  # Why before the wait: nothing of it would end by waiting.
        elif turn[0] == threading.get_ident():
            raise DatabaseBusy(
                f"This thread has database {self._paths.name!r} in `write` already.",
                remedy="Use the connection of the outer `with`; another thread or process would wait for its turn.",
            )

    def _open(self, deadline: float) -> Connection:
        from pondkeeper.engine.plain import open_plain_database

        while True:
            try:
                return open_plain_database(str(self._paths.file))
            except DatabaseBusy:  # a program that did not ask has slipped in
                if time.monotonic() >= deadline:
                    raise
            time.sleep(OPEN_POLL_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        turn = _turns.get(self._paths.file)
        if turn is None:
            return  # Why: this is a forked child of the process whose turn it is.
        try:
            was_open, is_still_open = self._close()
        finally:
            del _turns[self._paths.file]
            turn[1].release(from_all=True)
        if error is not None:
            return
        self._publish()
        if was_open:
            raise StatementFailed(
                "The block ended while a transaction was open; it was rolled back.", remedy="COMMIT it before the end."
            )
        if is_still_open:
            raise DatabaseBusy(
                "The database is still open in this process: a relation or a result that refers to it lives on.",
                remedy="Fetch results inside the block, and let go of relations and other connections before its end.",
            )

    def _close(self) -> tuple[bool, bool]:
        """Whether a transaction was open, and whether something keeps the file open all the same."""
        from pondkeeper.engine.plain import close_plain_database, collect_results

        assert self._connection is not None
        was_open = close_plain_database(self._connection)
        self._connection = None
        if is_open_here(self._paths.file):
            collect_results()
        return was_open, is_open_here(self._paths.file)

    def _publish(self) -> None:
        try:
            snapshot = publish(self._paths)
        except PondkeeperError as error:
            message = f"What was written is committed, and not published yet: {error.message} [{error.code}]"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return
        self.version = snapshot["version"] if snapshot else None


def _forget_turns() -> None:
    """In a forked child: the turns are its parent's. Why closed: an inherited descriptor would keep the lease.

    The connection is the parent's too: what it wrote here, without DuckDB's lock, would undo the parent's commits.
    """
    for file, (_, lease) in _turns.items():
        take_away(file, file.with_name(file.name + ".wal"))
        lease.disown()
    _turns.clear()


os.register_at_fork(after_in_child=_forget_turns)

"""One opening of the database file by the writer, from connect to close."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pondkeeper.engine.bulk import must_be_folded
from pondkeeper.engine.faults import translate
from pondkeeper.engine.holding import HeldLock
from pondkeeper.engine.idempotency import Outcomes
from pondkeeper.engine.opening import WriterConfig, open_database
from pondkeeper.engine.writing import CommitUnknown, Judge, LoneInsert, Transaction, checkpoint
from pondkeeper.files.durable import sync_folder
from pondkeeper.files.paths import OF_REPLACED


class Session:
    """The open file. `recovered` says whether a WAL was there, so that its commits are not in any snapshot yet."""

    def __init__(self, config: WriterConfig) -> None:
        # A writer that dies in a checkpoint leaves what was committed meanwhile in `.wal.checkpoint`.
        left_behind = any(Path(config.path + suffix).exists() for suffix in (".wal", ".wal.checkpoint"))
        self.recovered = left_behind or not Path(config.path).exists()
        self._connection = open_database(config)
        self._cursor = self._connection.cursor()
        self._own = self._connection.cursor()
        self.judge = Judge(self._own)
        self._lock = HeldLock(config.path)
        self._path = config.path
        self.outcomes = Outcomes(self._own)
        self.lone_insert = LoneInsert(self._own, self.judge, self._lock)
        self._identity = _identity(config.path)
        self._wal = config.path + ".wal"
        self._wal_identity: tuple[int, int] | None = None
        self._wal_is_named = False

    def is_in_place(self) -> bool:
        """Whether the open file is still the one at its path: somebody may have moved, removed or replaced it.

        Trap: commits to a file that was replaced succeed, and are gone when it is closed. Asked by stat, which is
        harmless beside DuckDB's lock.
        """
        now = _identity(self._path)
        if now is not None and now == self._identity:
            self._wal_identity = _identity(self._wal)
            return True
        if now is not None:
            self._put_wal_aside()
        return False

    def _put_wal_aside(self) -> None:
        """Our WAL lies beside another file now. Trap: to files of early storage versions DuckDB applies any WAL, silently.

        Not where the file is only missing: whoever moved it away may put it back, and then it needs its WAL.
        """
        if self._wal_identity is not None and _identity(self._wal) == self._wal_identity:
            with suppress(OSError):
                Path(self._wal).rename(self._wal + OF_REPLACED)

    def transaction(self) -> Transaction:
        """A transaction that has not begun; one at a time.

        Trap: temp tables, temp views and temp macros live as long as their cursor and hide tables of the same name, so
        each transaction has a cursor of its own. (Those that share one change rows only, and make no such things.)
        """
        self._cursor.close()
        self._cursor = self._connection.cursor()
        return Transaction(self._cursor, self.judge, self._lock, self.outcomes)

    def keep_wal(self) -> None:
        """After a commit, before it is acknowledged: the WAL that it may have made is there after a power cut.

        Trap: DuckDB syncs the WAL and never the folder that names it, and each CHECKPOINT ends with the WAL's removal.
        Raises CommitUnknown.
        """
        if self._wal_is_named:
            return
        try:
            sync_folder(Path(self._path).parent)
        except OSError as error:
            raise CommitUnknown(translate(error)) from error
        self._wal_is_named = True

    def must_be_folded(self) -> bool:
        """Whether a commit of very many rows must be in the file before the next one."""
        return must_be_folded(self._own)

    def checkpoint(self) -> None:
        """Fold the WAL into the file; whoever writes meanwhile waits in the engine. Raises CheckpointPostponed or PondkeeperError."""
        self._wal_is_named = False
        checkpoint(self._connection)

    def close(self) -> None:
        """Close the file, without a checkpoint."""
        self._cursor.close()
        self._own.close()
        self._connection.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino

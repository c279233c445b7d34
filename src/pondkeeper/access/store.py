"""control.db: the SQLite file of keys. Opening it brings its schema up to date; every change is one transaction.

A Store belongs to the thread that opened it. It blocks: the keeper uses it in the one thread of `keyring.Keyring`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pondkeeper.access.mark import ChangeMark
from pondkeeper.access.schema import MIGRATIONS
from pondkeeper.errors import ControlUnavailable, DiskFull, PondkeeperError
from pondkeeper.files.durable import PRIVATE_FILE, make_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x504B6370  # "PKcp": tells our file from any other SQLite file.
BUSY_TIMEOUT_S = 10.0


class Store:
    """An open control.db. `read` and `change` give the connection; SQLite's errors leave as ours."""

    def __init__(self, path: Path, connection: sqlite3.Connection, mark: ChangeMark) -> None:
        self.path = path
        self.mark = mark
        self._connection = connection

    @staticmethod
    def open(path: Path) -> Store:
        """Open control.db, made (0600) and migrated where needed. Raises ControlUnavailable or DiskFull."""
        with _translated(path):
            _make_file(path)
            connection = _connect(path)
            try:
                _prepare(connection)
                return Store(path, connection, ChangeMark.open(path.with_name("control.mark")))
            except BaseException:  # Why: whatever went wrong, the connection must not stay open behind it.
                connection.close()
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection for reading: each statement sees what is committed."""
        with _translated(self.path):
            yield self._connection

    @contextmanager
    def change(self, *, marked: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: committed durably when the block ends, rolled back when it raises.

        `marked` tells every keyring on this machine that keys changed, before this returns.
        """
        with _translated(self.path):
            with _transaction(self._connection):
                yield self._connection
            if marked:
                self.mark.change()

    def wait_at_most(self, seconds: float) -> None:
        """How long a statement waits for another process's lock, from now on."""
        with self.read() as connection:
            connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def data_version(self) -> int:
        """A number that differs from the last time when another process has committed."""
        with self.read() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        self.mark.close()


def _make_file(path: Path) -> None:
    """An empty private file, unless there is one.

    Trap: O_EXCL, because opening and closing an existing control.db beside SQLite drops SQLite's own fcntl locks.
    """
    make_folder(path.parent)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            path.chmod(PRIVATE_FILE)
        return
    sync_folder(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
    )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    _refuse_other_file(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # Why: a revocation must survive a power cut.
    connection.execute("PRAGMA trusted_schema = OFF")
    _migrate(connection)


def _refuse_other_file(connection: sqlite3.Connection) -> None:
    # Trap: tables first. Another process may make them, and sign for them in the same transaction, between the two looks.
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application_id = _pragma(connection, "application_id")
    if application_id != APPLICATION_ID and (application_id or tables):
        raise ControlUnavailable("control.db is a SQLite file of another program.")


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, one transaction per step: a crash in the middle leaves the step before it."""
    for version, statements in enumerate(MIGRATIONS, start=1):
        if _schema_version(connection) < version:
            _take_step(connection, version, statements)


def _take_step(connection: sqlite3.Connection, version: int, statements: tuple[str, ...]) -> None:
    with _transaction(connection):
        if _schema_version(connection) >= version:
            return  # Another process took this step while we waited for the lock.
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


def _schema_version(connection: sqlite3.Connection) -> int:
    version = _pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise ControlUnavailable(
            "control.db was written by a newer Pondkeeper.",
            remedy="Install that version again (`pip install -U pondkeeper`).",
        )
    return version


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # Why: an open transaction would lock every other process out.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path) from error
    except OSError as error:
        private = f"{path}: {error}"
        raise ControlUnavailable(f"control.db cannot be opened: {error.strerror}.", private=private) from error


def is_locked(error: ControlUnavailable) -> bool:
    """Whether it was another process's lock, which passes."""
    return _sqlite_name(error.__cause__)[1:] in (["BUSY"], ["LOCKED"])


def _sqlite_name(error: BaseException | None) -> list[str]:
    """SQLITE_IOERR_FSYNC → ["SQLITE", "IOERR"]."""
    return str(getattr(error, "sqlite_errorname", "")).split("_")[:2]


def _translate(error: sqlite3.Error, path: Path) -> PondkeeperError:
    private = f"{path}: {error}"
    match _sqlite_name(error):
        case ["SQLITE", "FULL"]:
            return DiskFull(private=private)
        case ["SQLITE", "BUSY" | "LOCKED"]:
            return ControlUnavailable("Another process keeps control.db locked.", private=private)
        case ["SQLITE", "NOTADB" | "CORRUPT"]:
            return ControlUnavailable(
                "control.db is damaged, or not a SQLite file.",
                remedy="Move control.db and its -wal file away and start again: a new admin key is made, old keys end.",
                private=private,
            )
        case ["SQLITE", "READONLY" | "CANTOPEN" | "PERM"]:
            return ControlUnavailable("control.db or its folder cannot be written.", private=private)
    return ControlUnavailable(private=private)

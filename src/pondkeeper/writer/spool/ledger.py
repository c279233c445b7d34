"""What has become of tickets, and which client's key belongs to which: a SQLite file beside the log, safe for threads.

The log says what was accepted, the ledger how far it has been applied: `cursor` is the first place that still waits.
Without the ledger nothing would be lost or doubled, because the database itself knows the keys of what it has.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from pondkeeper.errors import DiskFull, PondkeeperError, SpoolUnavailable
from pondkeeper.files.durable import PRIVATE_FILE, sync_folder
from pondkeeper.writer.spool.log import Entry

FORGOTTEN_AT_ONCE: Final = 10_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (place INTEGER PRIMARY KEY, settled_at REAL NOT NULL, outcome BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, digest TEXT NOT NULL, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_by_place ON keys (place);
"""


class Settled(msgspec.Struct, omit_defaults=True, frozen=True):
    """What became of a ticket: committed (version, rows), refused (error) or cancelled."""

    outcome: str
    table: str
    accepted_at: float
    settled_at: float
    version: int | None = None
    rows: int | None = None
    rejected: int = 0
    rejects: str | None = None
    error: dict[str, Any] | None = None
    key_id: str | None = None
    client: str | None = None


class Known(msgspec.Struct, frozen=True):
    """The ticket that a client's key belongs to, and the digest of what it was used for."""

    digest: str
    place: int


def settled(entry: Entry, outcome: str, **what: Any) -> Settled:
    """What has become of an entry, just now."""
    header = entry.header
    return Settled(
        outcome=outcome,
        table=header.name,
        accepted_at=header.accepted_at,
        settled_at=time.time(),
        key_id=header.key_id,
        client=header.client,
        **what,
    )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Settled)


class Ledger:
    """The open file. Everything here may wait for the disk: not on the event loop. Raises DiskFull or SpoolUnavailable."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        with _translated():
            self._connection = _opened(path)
        self.secret = self._secret()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated():
            yield self._connection

    @contextmanager
    def _changing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction. `durable`: it is on disk when this ends; else only whole and in order."""
        with self._reading() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:  # Why: whatever ended it, nothing of it is to stay.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _secret(self) -> bytes:
        with self._changing() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (os.urandom(32),))
            return bytes(connection.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0])

    # How far

    @property
    def cursor(self) -> int:
        """The first place that waits."""
        with self._reading() as connection:
            found = connection.execute("SELECT value FROM meta WHERE name = 'cursor'").fetchone()
        return int(found[0]) if found else 0

    def settle(self, outcomes: Sequence[tuple[int, Settled]], cursor: int | None = None) -> None:
        """Write down outcomes, and that everything before `cursor` has one; durable when this returns."""
        rows = [(place, each.settled_at, _encoder.encode(each)) for place, each in outcomes]
        with self._changing() as connection:
            connection.executemany("INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?)", rows)
            if cursor is not None:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('cursor', ?)", (cursor,))

    # Outcomes

    def outcome(self, place: int) -> Settled | None:
        """What became of the ticket at this place; None while it waits, or when it is forgotten."""
        with self._reading() as connection:
            found = connection.execute("SELECT outcome FROM outcomes WHERE place = ?", (place,)).fetchone()
        return _decoder.decode(found[0]) if found else None

    def places_from(self, cursor: int) -> list[int]:
        """Places behind the cursor that have an outcome already: their tickets were taken back."""
        with self._reading() as connection:
            return [place for (place,) in connection.execute("SELECT place FROM outcomes WHERE place >= ?", (cursor,))]

    def newest(self, limit: int, before: int | None = None) -> list[tuple[int, Settled]]:
        """Outcomes, the youngest tickets first; from below the place `before`."""
        query = "SELECT place, outcome FROM outcomes WHERE place < ? ORDER BY place DESC LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(query, (2**62 if before is None else before, limit)).fetchall()
        return [(place, _decoder.decode(outcome)) for place, outcome in rows]

    def forget(self, keep_s: float, cursor: int) -> int:
        """Forget some of what was settled longer than `keep_s` ago and lies before `cursor`; how many outcomes."""
        with self._changing(durable=False) as connection:
            old = "SELECT place FROM outcomes WHERE settled_at < ? AND place < ? ORDER BY place LIMIT ?"
            places = connection.execute(old, (time.time() - keep_s, cursor, FORGOTTEN_AT_ONCE)).fetchall()
            connection.executemany("DELETE FROM keys WHERE place = ?", places)
            connection.executemany("DELETE FROM outcomes WHERE place = ?", places)
        return len(places)

    # Keys of clients

    @property
    def keyed_before(self) -> int:
        """All keys at places before this one are here."""
        with self._reading() as connection:
            return int(connection.execute("SELECT coalesce(max(place), -1) + 1 FROM keys").fetchone()[0])

    def known(self, keys: Sequence[str]) -> dict[str, Known]:
        """Those of the keys that belong to a ticket."""
        query = "SELECT digest, place FROM keys WHERE key = ?"
        with self._reading() as connection:
            found = {key: connection.execute(query, (key,)).fetchone() for key in keys}
        return {key: Known(*row) for key, row in found.items() if row is not None}

    def remember(self, keys: Sequence[tuple[str, str, int]]) -> None:
        """Note keys with digest and place. Not durable: after a power cut, the log has those that are missing."""
        with self._changing(durable=False) as connection:
            connection.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", keys)

    def drop_keys_from(self, place: int) -> None:
        """Forget keys of entries that are not there."""
        with self._changing() as connection:
            connection.execute("DELETE FROM keys WHERE place >= ?", (place,))


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():
        # Trap: only where there is none: closing an open SQLite file's second descriptor would drop its locks.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
        sync_folder(path.parent)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.executescript(_SCHEMA)
    except BaseException:  # Why: whatever went wrong, the connection must not stay open behind it.
        connection.close()
        raise
    return connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error) from error
    except (OSError, msgspec.DecodeError) as error:
        raise SpoolUnavailable(private=str(error)) from error


def _translate(error: sqlite3.Error) -> PondkeeperError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return DiskFull("The disk of the spool is full.", private=str(error))
    return SpoolUnavailable(private=str(error))

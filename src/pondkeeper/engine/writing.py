"""Writing: one transaction of statements from outside, and the checkpoint; used by the writer process only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from pondkeeper.engine.faults import translate
from pondkeeper.engine.holding import HeldLock
from pondkeeper.engine.parameters import bind
from pondkeeper.engine.statements import writing_statement
from pondkeeper.errors import DiskFull, PondkeeperError, QueryCancelled

Parameters = list[Any] | dict[str, Any] | None
_REFUSALS = ("constraint", "conflict", "primary key", "write-write")
_FETCH_ROWS = 2048


class CommitUnknown(Exception):
    """The commit failed in a way that may have committed all the same (FACTS: 15 of 57 injected errors had)."""

    def __init__(self, error: PondkeeperError) -> None:
        super().__init__(error.message)
        self.error = error


class CheckpointPostponed(Exception):
    """DuckDB cannot checkpoint beside a transaction that is open right now; try again shortly."""


class Transaction:
    """One atomic list of statements. It can be interrupted from another thread until its commit begins."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, number: int, on_commit: Callable[[], None], lock: HeldLock
    ) -> None:
        self.number = number
        self._lock_on_file = lock
        self._cursor = cursor
        self._on_commit = on_commit
        self._lock = threading.Lock()
        self._interrupted = False
        self._committing = False

    def interrupt(self) -> None:
        """Stop the statement that runs; too late once the commit has begun."""
        with self._lock:
            self._interrupted = True
            if not self._committing:
                self._cursor.interrupt()

    def run(self, statements: Sequence[tuple[str, Parameters]]) -> list[int]:
        """Execute all and commit; the rows changed by each. Raises PondkeeperError (nothing applied) or CommitUnknown."""
        self._cursor.begin()
        try:
            rows_changed = [self._execute(sql, parameters) for sql, parameters in statements]
            self._lock_on_file.insist()
            self._enter_commit()
        except BaseException:  # Why: whatever ended it, a failed transaction must not stay open.
            self._roll_back()
            raise
        self._on_commit()
        try:
            self._cursor.commit()
        except duckdb.Error as error:
            raise self._judge_failed_commit(error) from error
        return rows_changed

    def _execute(self, sql: str, parameters: Parameters) -> int:
        statement = writing_statement(self._cursor, sql)
        self._cursor.execute(statement.sql, bind(statement.parameter_names, parameters))
        return self._rows_changed()

    def _rows_changed(self) -> int:
        """DuckDB answers a change with one BIGINT named Count, RETURNING with the rows themselves."""
        columns = self._cursor.description or []
        if [name for name, *_ in columns] == ["Count"]:
            row = self._cursor.fetchone()
            return int(row[0]) if row else 0
        count = 0
        while rows := self._cursor.fetchmany(_FETCH_ROWS):
            count += len(rows)
        return count

    def _enter_commit(self) -> None:
        """Trap: after an interrupted statement DuckDB's COMMIT is a silent rollback, so it must not be reached."""
        with self._lock:
            if self._interrupted:
                raise QueryCancelled
            self._committing = True

    def _roll_back(self) -> None:
        try:
            self._cursor.rollback()
        except duckdb.Error:  # Why: after a failed statement DuckDB may have ended the transaction by itself.
            return

    def _judge_failed_commit(self, error: duckdb.Error) -> Exception:
        """A conflict or a broken constraint has certainly not committed, nor has what found no room in the WAL.

        Of anything else we cannot know. Why of a full disk we can: the mark that makes a commit is the last thing in
        the WAL, so a write that did not get to its end has not written it, and replay drops what has none (120 of 120
        fillings of a small disk, both lines).
        """
        translated = translate(error)
        if isinstance(translated, DiskFull) or any(word in str(error).lower() for word in _REFUSALS):
            return translated
        return CommitUnknown(translated)


def checkpoint(connection: duckdb.DuckDBPyConnection) -> None:
    """Fold the WAL into the file. Raises CheckpointPostponed when an open transaction stands in the way."""
    cursor = connection.cursor()
    try:
        cursor.execute("CHECKPOINT")
    except duckdb.TransactionException as error:
        raise CheckpointPostponed from error
    except duckdb.Error as error:
        raise translate(error) from error
    finally:
        cursor.close()

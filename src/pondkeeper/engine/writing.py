"""Writing: one transaction of statements from outside, and the checkpoint; used by the writer process only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import duckdb

from pondkeeper.engine.faults import translate
from pondkeeper.engine.fusing import Kinds, RowInsert, insert_rows, row_insert
from pondkeeper.engine.holding import HeldLock
from pondkeeper.engine.idempotency import Outcomes, Record
from pondkeeper.engine.intake.breaking import write_broken
from pondkeeper.engine.intake.loading import Load, load
from pondkeeper.engine.loads.carrying import Carried, Carrier
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.engine.parameters import bind
from pondkeeper.engine.statements import WritingStatement, writing_statement
from pondkeeper.errors import DiskFull, PondkeeperError, QueryCancelled, RowsBroken

Parameters = list[Any] | dict[str, Any] | None
_REFUSALS = ("constraint", "conflict", "primary key", "write-write")
_FETCH_ROWS = 2048
_MAX_KNOWN_SQL_CHARS: Final = 10_000


class Judge:
    """What a statement is, remembered by its text: clients send the same ones over and over."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._judge = lambda sql: writing_statement(connection, sql)
        self._known = lru_cache(maxsize=1024)(self._judge)

    def __call__(self, sql: str) -> WritingStatement:
        """The statement. Raises PondkeeperError for what the writer does not run."""
        return (self._known if len(sql) <= _MAX_KNOWN_SQL_CHARS else self._judge)(sql)


class CommitUnknown(Exception):
    """The commit failed in a way that may have committed all the same (FACTS: 15 of 57 injected errors had)."""

    def __init__(self, error: PondkeeperError) -> None:
        super().__init__(error.message)
        self.error = error


class CheckpointPostponed(Exception):
    """DuckDB cannot checkpoint beside a transaction that is open right now; try again shortly."""


class Transaction:
    """Statements with one commit. It can be interrupted from another thread until its commit begins."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, judge: Judge, lock: HeldLock, outcomes: Outcomes | None = None
    ) -> None:
        self._lock_on_file = lock
        self._outcomes = outcomes
        self._cursor = cursor
        self._judge = judge
        self._lock = threading.Lock()
        self._committing = False
        self.was_interrupted = False

    def interrupt(self) -> None:
        """Stop the statement that runs; too late once the commit has begun."""
        with self._lock:
            self.was_interrupted = True
            if not self._committing:
                self._cursor.interrupt()

    def begin(self) -> None:
        """Begin; whoever begins commits or rolls back."""
        self._cursor.begin()

    def execute(self, sql: str, parameters: Parameters) -> int:
        """Execute one statement; the rows changed. Raises what the engine raises, or PondkeeperError."""
        statement = self._judge(sql)
        if self.was_interrupted:
            raise QueryCancelled
        if row_insert(sql) is None:
            self._lock_on_file.doubt()
        self._cursor.execute(statement.sql, bind(statement.parameter_names, parameters))
        return _rows_changed(self._cursor)

    def insert_rows(self, insert: RowInsert, rows: Sequence[Sequence[Any]], kinds: Kinds) -> int:
        """Insert many rows by one statement; how many. Raises what the engine raises."""
        if self.was_interrupted:
            raise QueryCancelled
        return insert_rows(self._cursor, insert, rows, kinds)

    def load(self, wanted: Load) -> int:
        """Load staged rows; how many. Raises what the engine raises, or PondkeeperError.

        RowsBroken: some break constraints of the table, and which is written where the load says.
        """
        if self.was_interrupted:
            raise QueryCancelled
        self._lock_on_file.doubt()
        try:
            return load(self._cursor, wanted)
        except duckdb.ConstraintException:
            if wanted.broken is not None and wanted.shape is not None:
                self._find_broken(wanted)
            raise

    def carry_out(self, plan: LoadPlan) -> Carried:
        """Carry out the load of a job. Raises what the engine raises, or PondkeeperError."""
        self._lock_on_file.doubt()
        return Carrier(self._cursor, plan, self.execute).run()

    def _find_broken(self, wanted: Load) -> None:
        """Raise RowsBroken if rows are found that break constraints; in a new transaction, since this one has failed."""
        self.roll_back()
        if self.was_interrupted:
            raise QueryCancelled
        self.begin()
        if found := write_broken(self._cursor, wanted):
            raise RowsBroken(count=found)

    def remember(self, records: Sequence[Record]) -> None:
        """Write the outcomes of writes with a key, to be committed with them. Raises PondkeeperError."""
        assert self._outcomes is not None, "a transaction without outcomes remembers none"
        self._outcomes.remember(self._cursor, records)

    def commit(self, on_commit: Callable[[], None]) -> None:
        """Commit, after a call of `on_commit`. Raises PondkeeperError (nothing applied, roll back) or CommitUnknown."""
        self._lock_on_file.insist()
        self._enter_commit()
        on_commit()
        try:
            self._cursor.commit()
        except duckdb.Error as error:
            raise _judge_failed_commit(error) from error

    def run(self, statements: Sequence[tuple[str, Parameters]], on_commit: Callable[[], None] = lambda: None) -> list[int]:
        """Begin, execute all, commit; the rows changed by each."""
        self.begin()
        try:
            rows_changed = [self.execute(sql, parameters) for sql, parameters in statements]
            self.commit(on_commit)
        except BaseException:  # Why: whatever ended it, a failed transaction must not stay open.
            self.roll_back()
            raise
        return rows_changed

    def _enter_commit(self) -> None:
        """Trap: after an interrupted statement DuckDB's COMMIT is a silent rollback, so it must not be reached."""
        with self._lock:
            if self.was_interrupted:
                raise QueryCancelled
            self._committing = True

    def roll_back(self) -> None:
        """Undo all of it; safe to call after anything."""
        try:
            self._cursor.rollback()
        except duckdb.Error:  # Why: after a failed statement DuckDB may have ended the transaction by itself.
            return


class LoneInsert:
    """INSERTs of one row of placeholders, each its own transaction: DuckDB commits it at the end of the statement.

    Why not a Transaction: BEGIN, INSERT, COMMIT on a cursor of their own take half as much time again. Such a statement
    makes nothing temporary, so one cursor serves them all.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, judge: Judge, lock: HeldLock) -> None:
        self._cursor = cursor
        self._judge = judge
        self._lock_on_file = lock

    def interrupt(self) -> None:
        """Stop the statement that runs, unless it is committed already."""
        self._cursor.interrupt()

    def run(self, sql: str, parameters: Parameters, on_commit: Callable[[], None]) -> int:
        """Insert the row and commit it, after a call of `on_commit`; the rows changed.

        Raises PondkeeperError or what the engine raises (nothing applied), or CommitUnknown.
        """
        statement = self._judge(sql)
        bound = bind(statement.parameter_names, parameters)
        self._lock_on_file.insist()
        on_commit()
        try:
            self._cursor.execute(statement.sql, bound)
            return _rows_changed(self._cursor)
        except _BEFORE_ANY_COMMIT:
            raise
        except duckdb.Error as error:
            raise _judge_failed_commit(error) from error


# Errors of the statement itself: whatever raises them has not come as far as its commit, or was refused by it. Of 5,076
# interrupts that were raised, at random moments of such statements, none had committed (both lines; the test repeats it).
_BEFORE_ANY_COMMIT: Final = (
    duckdb.DataError,
    duckdb.IntegrityError,
    duckdb.InterruptException,
    duckdb.NotSupportedError,
    duckdb.PermissionException,
    duckdb.ProgrammingError,
    duckdb.SequenceException,
)


def _rows_changed(cursor: duckdb.DuckDBPyConnection) -> int:
    """DuckDB answers a change with one BIGINT named Count, RETURNING with the rows themselves."""
    columns = cursor.description or []
    if [name for name, *_ in columns] == ["Count"]:
        row = cursor.fetchone()
        return int(row[0]) if row else 0
    count = 0
    while rows := cursor.fetchmany(_FETCH_ROWS):
        count += len(rows)
    return count


def _judge_failed_commit(error: duckdb.Error) -> Exception:
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

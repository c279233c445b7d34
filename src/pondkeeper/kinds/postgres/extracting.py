"""Tables of a source into staged files: several sessions on one snapshot, each copying a piece of a table at a time."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import adbc_driver_manager as adbc
import adbc_driver_postgresql

from pondkeeper.engine.direct import Column
from pondkeeper.engine.extracting import Stager, value_of
from pondkeeper.errors import (
    PondkeeperError,
    QueryCancelled,
    RunCancelled,
    SourceRefused,
    SourceUnavailable,
    StatementFailed,
)
from pondkeeper.kinds.postgres.connecting import Connection, answering, literal, meant, quoted, session_sql
from pondkeeper.kinds.postgres.describing import TABLE, SourceTable
from pondkeeper.kinds.postgres.types import Mapped
from pondkeeper.settings.machine import this_machine

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.context import RunContext

PIECE_PAGES: Final = 4096  # 32 MiB of a table: small enough that sessions end together, and that progress moves
LARGE_PAGES: Final = 262_144  # 2 GiB of all tables together: from there on what is staged is compressed
MOST_SESSIONS: Final = 4
_SPLIT_SINCE: Final = 140_000  # before, a range of ctid was a scan of the whole table
_PROGRESS_SINCE: Final = 140_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
_LOOK_S: Final = 0.3
_SQLSTATE: Final = re.compile(r"SQLSTATE:? ?([0-9A-Z]{5})")


@dataclass(frozen=True)
class Piece:
    """What one COPY brings: of which table, by which condition of PostgreSQL, into which file."""

    table: SourceTable
    columns: tuple[Mapped, ...]
    where: tuple[str, ...]
    file: Path
    label: str

    @property
    def rest(self) -> Path:
        """For the rows that fill no row group; such files come behind all others when a load sorts them."""
        return self.file.with_name(f"{self.label}-rest-{self.file.name.removeprefix(self.label + '-')}")

    @property
    def files(self) -> list[Path]:
        """What was staged."""
        return [file for file in (self.file, self.rest) if file.exists()]

    @property
    def sql(self) -> str:
        """The query at the source."""
        selected = ", ".join(f"{each.select(quoted(each.column))} AS c{at}" for at, each in enumerate(self.columns))
        condition = " AND ".join(f"({each})" for each in self.where)
        return f"SELECT {selected} FROM {self.table.sql}" + (f" WHERE {condition}" if condition else "")

    @property
    def decoded(self) -> list[Column]:
        """How each column of the file is made of what comes."""
        return [_decoded(each, f"c{at}") for at, each in enumerate(self.columns)]


def _decoded(each: Mapped, source: str) -> Column:
    sql = each.decode(source)
    return Column(each.column, source, sql, each.direct, is_json=each.staged == "JSON" and sql == source)


def pieces(
    table: SourceTable, columns: Sequence[Mapped], where: Sequence[str], folder: Path, label: str, *, server_version: int, whole: bool = False
) -> list[Piece]:
    """The table in pieces that sessions can share. `whole`: in one, such as where an index finds the rows."""
    count = -(-table.pages // PIECE_PAGES) if table.relation == TABLE and server_version >= _SPLIT_SINCE and not whole else 1
    ranges = [_pages(at, last=at == count - 1) for at in range(count)] if count > 1 else [()]
    return [
        Piece(table, tuple(columns), (*where, *range_), folder / f"{label}-{at:05d}.arrow", label) for at, range_ in enumerate(ranges)
    ]


def _pages(at: int, *, last: bool) -> tuple[str, ...]:
    """Pages of one piece; the last one has all that follow, however many there are by now."""
    begin = f"ctid >= '({at * PIECE_PAGES},0)'::tid"
    return (begin,) if last else (begin, f"ctid < '({(at + 1) * PIECE_PAGES},0)'::tid")


class Extraction:
    """Copies pieces in several sessions, all of them on the snapshot that `connection` (or somebody else) has exported."""

    def __init__(self, context: RunContext, settings: PostgresSettings, address: str, snapshot: str) -> None:
        self._context = context
        self._settings = settings
        self._address = address
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._failed: list[PondkeeperError] = []
        self._stager: Stager | None = None
        self._is_large = False

    def copy(self, wanted: Sequence[Piece], connection: Connection, done: Callable[[Piece, int], None], total: int | None = None) -> None:
        """Copy all pieces; `done` hears of each, with its rows. Progress is asked of the source through `connection`.

        Raises SourceUnavailable (nothing is of use then), SourceRefused, RunCancelled, or what else ended it.
        """
        if not wanted:
            return
        self._is_large = sum({piece.table.oid: piece.table.pages for piece in wanted}.values()) > LARGE_PAGES
        waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        for piece in sorted(wanted, key=lambda piece: -min(piece.table.pages, PIECE_PAGES)):
            waiting.put(piece)
        machine = this_machine()
        count = min(self._settings.sessions or min(MOST_SESSIONS, machine.cpus), len(wanted))
        limit_bytes = max(512 * 1024 * 1024, machine.ram_bytes // 4)
        self._stager = Stager(self._context.staging, memory_limit_bytes=limit_bytes, threads=max(machine.cpus, 1))
        finished = [0]
        source = Source(self._address)
        threads = [
            threading.Thread(target=self._work, args=(source, waiting, done, finished), name=f"session {number}") for number in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            self._watch(threads, connection, finished, total)
        finally:
            self._end()
            for thread in threads:
                thread.join()
            source.close()
            self._stager.close()
        self._context.check_stopping()
        if self._failed:
            raise self._failed[0]

    def _work(self, source: Source, waiting: queue.SimpleQueue[Piece], done: Callable[[Piece, int], None], finished: list[int]) -> None:
        """One session, until there is nothing left to do or somebody has failed."""
        try:
            with self._session(source) as session:
                while not self._failed and not self._context.stopping.is_set():
                    try:
                        piece = waiting.get_nowait()
                    except queue.Empty:
                        return
                    assert self._stager is not None
                    rows = stage_piece(session, self._stager, piece, is_large=self._is_large)
                    with self._lock:
                        finished[0] += rows
                        done(piece, rows)
        except PondkeeperError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - it must not end in a thread that nobody asks
            self._fail(PondkeeperError(f"Copying failed: {type(error).__name__}.", private=repr(error)))

    @contextlib.contextmanager
    def _session(self, source: Source) -> Iterator[Session]:
        session = source.session(self._settings, self._snapshot)
        with self._lock:
            self._sessions.append(session)
        try:
            yield session
        finally:
            with self._lock:
                self._sessions.remove(session)
            session.close()

    def _fail(self, error: PondkeeperError) -> None:
        with self._lock:
            self._failed.append(error)
        self._end()

    def _end(self) -> None:
        """Whatever is still being copied ends now."""
        if self._stager is not None:
            self._stager.end()
        with self._lock:
            for session in self._sessions:
                session.cancel()

    def _watch(self, threads: Sequence[threading.Thread], connection: Connection, finished: list[int], total: int | None) -> None:
        can_ask = connection.info.server_version >= _PROGRESS_SINCE
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(_LOOK_S / len(threads))
            if self._context.stopping.is_set() or self._failed:
                self._end()
            elif can_ask:
                self._tell(connection, finished[0], total)

    def _tell(self, connection: Connection, finished: int, total: int | None) -> None:
        """Rows of the finished pieces, and of those that are under way."""
        with self._lock:
            pids = [session.pid for session in self._sessions]
        with contextlib.suppress(SourceUnavailable, SourceRefused), answering():
            connection.execute("SELECT pg_stat_clear_snapshot()")  # Why: within one transaction the source shows what it showed first
            sql = "SELECT coalesce(sum(tuples_processed), 0)::bigint FROM pg_stat_progress_copy WHERE pid = ANY(%s)"
            [[under_way]] = connection.execute(sql, [pids]).fetchall()
            done = finished + under_way
            self._context.progress(done, max(total, done) if total else None)


class Source:
    """Opens sessions of the ADBC driver, which learns the source's types once for all of them.

    Why not through its DB-API: that imports half of pyarrow, a tenth of a second, which nothing here needs.
    """

    def __init__(self, address: str) -> None:
        with _adbc_answering():
            self._database = adbc_driver_postgresql.connect(address)

    def session(self, settings: PostgresSettings, snapshot: str) -> Session:
        """A session on the snapshot. Raises SourceUnavailable, SourceRefused."""
        return Session(self._database, settings, snapshot)

    def close(self) -> None:
        """Not before every session is closed."""
        with contextlib.suppress(adbc.Error):
            self._database.close()


class Session:
    """A session of the ADBC driver on a snapshot. Errors are SourceUnavailable or SourceRefused."""

    def __init__(self, database: adbc.AdbcDatabase, settings: PostgresSettings, snapshot: str) -> None:
        with _adbc_answering():
            self._connection = adbc.AdbcConnection(database)
            try:
                self.pid = int(self._prepare(settings, snapshot))
            except BaseException:  # Why: nobody else has it yet.
                self._connection.close()
                raise

    def _prepare(self, settings: PostgresSettings, snapshot: str) -> int:
        for statement in session_sql(settings).split("; "):
            self._execute(statement)
        self._execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        with self.copying("SELECT pg_backend_pid()") as stream:
            return int(value_of(stream))

    def _execute(self, sql: str) -> None:
        with adbc.AdbcStatement(self._connection) as statement:
            statement.set_sql_query(sql)
            statement.execute_update()

    @contextlib.contextmanager
    def copying(self, sql: str) -> Iterator[adbc.ArrowArrayStreamHandle]:
        """A stream of Arrow with the rows of the query."""
        with adbc.AdbcStatement(self._connection) as statement:
            with _adbc_answering():
                statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
                statement.set_sql_query(sql)
                stream, _ = statement.execute_query()
            yield stream

    def cancel(self) -> None:
        """Have the source end what it does for this session; from any thread."""
        with contextlib.suppress(adbc.Error):
            self._connection.cancel()

    def close(self) -> None:
        with contextlib.suppress(adbc.Error):
            self._connection.close()


def stage_piece(session: Session, stager: Stager, piece: Piece, *, is_large: bool = False) -> int:
    """Copy one piece into its file; how many rows there were. Raises SourceUnavailable, SourceRefused, RunCancelled."""
    try:
        with session.copying(piece.sql) as stream:
            return stager.stage(stream, piece.decoded, piece.file, piece.rest, piece.table.row_bytes, is_large=is_large)
    except QueryCancelled:
        raise RunCancelled from None
    except (SourceUnavailable, SourceRefused):
        raise
    except PondkeeperError as error:
        raise _stream_error(error, piece) from error


@contextlib.contextmanager
def _adbc_answering() -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except adbc.Error as error:
        raise _driver_error(str(error), error.sqlstate) from error


def _driver_error(text: str, sqlstate: str | None) -> SourceUnavailable | SourceRefused:
    """What the driver says, without its own words around it."""
    state = sqlstate if sqlstate and sqlstate.strip("\0") else None
    if state is None and (found := _SQLSTATE.search(text)):
        state = found[1]
    message = " ".join(re.sub(r"\s*Query was:.*", "", text.partition("[libpq] ")[2] or text, flags=re.DOTALL).split())
    message = re.sub(r"^(Failed to \w+( query)?: |could not begin COPY: |Execution error \[\w+\]: |ERROR: +)*", "", message)[:500]
    if state is None:
        # Why by text: of what ends a stream the driver tells no more. FATAL and silence end the session, an ERROR does not.
        has_passed = "ERROR:" not in text or "conflict with recovery" in text
        return SourceUnavailable(f"The source gave up: {message}") if has_passed else SourceRefused(f"The source refuses: {message}")
    return meant(message, state, is_connection=False)


def _stream_error(error: PondkeeperError, piece: Piece) -> PondkeeperError:
    """What ended a stream within the engine: the source, or a value that does not fit."""
    text = error.private or error.message
    if "[libpq]" in text or "SQLSTATE" in text:
        return _driver_error(text, None)
    if isinstance(error, StatementFailed):
        remedy = (
            f'Give the column a type here that holds all its values: `[[jobs.NAME.table]]` with `name = "{piece.table.full_name}"` and '
            '`types = { column = "VARCHAR" }` (VARCHAR holds everything).'
        )
        return SourceRefused(f"A value of {piece.table.full_name} does not fit: {error.message}", remedy=remedy, private=error.private)
    return error

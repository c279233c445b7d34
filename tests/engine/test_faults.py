"""DuckDB's faults, provoked for real, become the errors that a caller can act on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pondkeeper.engine.faults import scrubbed, translate
from pondkeeper.engine.opening import ReaderConfig, WriterConfig, open_database, open_snapshot
from pondkeeper.errors import (
    DatabaseBusy,
    DatabaseEncrypted,
    DatabaseReadOnly,
    DatabaseTooNew,
    DatabaseUnavailable,
    DatabaseUnreadable,
    DiskFull,
    OutOfMemory,
    ParameterInvalid,
    PondkeeperError,
    QueryCancelled,
    SqlInvalid,
    StatementFailed,
    StatementNotAllowed,
)
from tests.engine.rendering import answer

MEMORY_BYTES = 256 * 1024 * 1024


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("selec 1", SqlInvalid),
        ("select nothing from t", SqlInvalid),
        ("select * from missing", SqlInvalid),
        ("select no_such_function(1)", SqlInvalid),
        ("select 'x'::integer", StatementFailed),
        ("select 2147483647::integer + 1::integer", StatementFailed),
        ("select error('told so')", StatementFailed),
        ("select (select i from t)", StatementFailed),
        ("select * from read_csv('/etc/passwd')", StatementNotAllowed),
        ("from '/etc/passwd'", PondkeeperError),
        ("select * from glob('/*')", StatementNotAllowed),
    ],
)
@pytest.mark.parametrize("form", ["json", "arrow"])
def test_a_fault_of_the_statement_is_the_callers(
    guest: duckdb.DuckDBPyConnection, sql: str, kind: type[PondkeeperError], form: str
) -> None:
    """Whether DuckDB or Arrow raised it, a fault in the SQL or its data is one of the errors for that, never internal."""
    with pytest.raises(kind) as raised:
        answer(guest, sql, form)

    assert raised.value.code != "internal"
    assert not raised.value.fatal


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_a_fault_in_the_middle_of_the_rows_is_translated_too(guest: duckdb.DuckDBPyConnection, form: str) -> None:
    """A row that cannot be made, long after the first ones were sent, raises the same error.

    Once in thousands of times, on a machine that is very busy, DuckDB tells of the interrupt by which it ends its other threads instead.
    """
    sql = "select if(i = 300000, error('row 300000'), i::varchar) as x from range(400000) as r(i)"

    try:
        answer(guest, sql, form)
    except QueryCancelled:
        with pytest.raises(StatementFailed, match="row 300000"):
            answer(guest, sql, form)
    except StatementFailed as failed:
        assert "row 300000" in failed.message
    else:
        pytest.fail("nothing was raised")


def test_memory_that_runs_out_is_a_limit(reader_config: ReaderConfig) -> None:
    """More than memory_limit and the temp limit allow is OutOfMemory, and the connection goes on."""
    config = ReaderConfig(reader_config.path, 32 * 1024 * 1024, 1, reader_config.temp_directory, 1024 * 1024)
    connection = open_snapshot(config)
    with pytest.raises(OutOfMemory):
        answer(connection, "select count(*) from (select distinct repeat(i::varchar, 40) from range(3000000) as r(i))")

    assert answer(connection, "select 1 as x", "ndjson")[1] == b'{"x":1}\n'
    connection.close()


def test_an_interrupt_is_a_cancelled_query(guest: duckdb.DuckDBPyConnection) -> None:
    """What `interrupt()` stops ends as QueryCancelled."""
    cursor = guest.cursor()
    timer = threading.Timer(0.3, cursor.interrupt)
    timer.start()
    with pytest.raises(duckdb.Error) as raised:
        cursor.execute("select count(*) from range(10000000) a, range(10000000) b where (a.range + b.range) % 7 = 3")
    timer.join()

    assert isinstance(translate(raised.value), QueryCancelled)


def hold(path: str, held: Any, release: Any) -> None:
    with duckdb.connect(path):
        held.set()
        release.wait(30)


def writer_config(path: Path) -> WriterConfig:
    return WriterConfig(str(path), MEMORY_BYTES, 1, str(path.parent / "temp"), 2**30)


def test_the_holder_of_the_lock_is_named(snapshot: Path, tmp_path: Path) -> None:
    """A file that another program has open is DatabaseBusy, with its PID and its program, and without a path."""
    path = Path(shutil.copy(snapshot, tmp_path / "held.duckdb"))
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(str(path), held, release))
    holder.start()
    try:
        assert held.wait(60)
        with pytest.raises(DatabaseBusy) as raised:
            open_database(writer_config(path))
    finally:
        release.set()
        holder.join()

    assert raised.value.details["holder_pid"] == holder.pid
    assert "python" in raised.value.details["holder_program"]
    assert "/" not in raised.value.message


def read(path: Path) -> None:
    """Open the file as a reader does and read all of a table."""
    connection = open_snapshot(ReaderConfig(str(path), MEMORY_BYTES, 1, str(path.parent / "temp"), 2**30))
    try:
        answer(connection, "select * from t")
    finally:
        connection.close()


def not_duckdb(path: Path) -> None:
    path.write_bytes(b"this is not a database, whatever its name\n" * 2000)


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)


def scribbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(200_000))


def with_the_wal_of_before(path: Path) -> None:
    """The log of before the last checkpoint, as a power cut may bring it back: DuckDB never fsyncs the folder."""
    path.unlink()
    connection = duckdb.connect(str(path), config={"storage_compatibility_version": "v1.5.0"})
    connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    connection.execute("CHECKPOINT")
    connection.execute("INSERT INTO t VALUES (2)")
    wal = path.with_name(path.name + ".wal")
    done = subprocess.run(["cat", str(wal)], capture_output=True, check=True)
    connection.execute("CHECKPOINT")
    connection.close()
    wal.write_bytes(done.stdout)


def of_the_future(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(12)
        file.write((9999).to_bytes(8, "little"))


def encrypted(path: Path) -> None:
    path.unlink()
    with duckdb.connect() as connection:
        try:
            connection.execute(f"ATTACH '{path}' AS locked (ENCRYPTION_KEY 'secret')")
        except duckdb.Error as refused:
            pytest.skip(f"this DuckDB makes no encrypted file: {refused}")
        connection.execute("CREATE TABLE locked.t AS SELECT 1 AS i; DETACH locked")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (not_duckdb, DatabaseUnreadable),
        (truncated, DatabaseUnreadable),
        (scribbled, DatabaseUnreadable),
        (with_the_wal_of_before, DatabaseUnreadable),
        (of_the_future, DatabaseUnavailable),
        (encrypted, DatabaseEncrypted),
    ],
)
@pytest.mark.fault
def test_a_file_that_cannot_be_opened_says_why(snapshot: Path, tmp_path: Path, damage: Any, kind: Any) -> None:
    """Not DuckDB, cut short, overwritten, from a newer release, encrypted: each is its own error, without a path."""
    path = Path(shutil.copy(snapshot, tmp_path / "damaged.duckdb"))
    read(path)
    damage(path)

    with pytest.raises(kind) as raised:
        read(path)

    assert str(tmp_path) not in raised.value.message


def test_a_newer_storage_version_is_told_from_damage() -> None:
    """DuckDB's words about a version it cannot read mean DatabaseTooNew."""
    told = duckdb.IOException(
        "IO Error: Trying to read a database file with version number 99, but we can only read versions between 64 and 68."
    )

    assert isinstance(translate(told), DatabaseTooNew)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.IOException('IO Error: Could not write file "/x/pond.duckdb": No space left on device'), DiskFull),
        (duckdb.FatalException("FATAL Error: Failed to commit: No space left on device"), DiskFull),
        (duckdb.IOException('IO Error: Cannot open file "/x/y/pond.duckdb": Permission denied'), DatabaseReadOnly),
        (duckdb.IOException('IO Error: Cannot open file "/x/pond.duckdb": Read-only file system'), DatabaseReadOnly),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (OSError(errno.EROFS, "Read-only file system"), DatabaseReadOnly),
        (MemoryError(), OutOfMemory),
        (OSError("Conversion Error: wrapped by Arrow"), StatementFailed),
        (OSError("INTERRUPT Error: Interrupted!"), QueryCancelled),
        (
            duckdb.InvalidInputException("Values were not provided for the following prepared statement parameters: 2"),
            ParameterInvalid,
        ),
        (ValueError("of our own making, with /a/path/in it"), PondkeeperError),
    ],
)
def test_the_text_decides_where_the_class_does_not(error: Exception, kind: type[PondkeeperError]) -> None:
    """Faults of the disk come in many classes; their text tells them apart, and no path of the server is shown."""
    translated = translate(error)

    assert type(translated) is kind
    assert "/x/" not in translated.message
    assert "/a/path" not in translated.message


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        (duckdb.FatalException("FATAL Error: database has been invalidated because of a previous fatal error"), True),
        (duckdb.InternalException("INTERNAL Error: Attempted to access index 5"), True),
        (duckdb.BinderException("Binder Error: no"), False),
    ],
)
def test_a_fault_that_ends_the_process_is_marked(error: Exception, fatal: bool) -> None:
    """After an internal or fatal error the instance answers nothing: the child that met it must end."""
    assert translate(error).fatal is fatal


def test_paths_of_the_server_are_cut_and_the_users_words_are_not(guest: duckdb.DuckDBPyConnection) -> None:
    """`/srv/secret/pond.duckdb` becomes its name; a path in the user's own statement is theirs to see."""
    assert scrubbed("Cannot open /srv/secret/pond.duckdb: no") == "Cannot open …/pond.duckdb: no"
    with pytest.raises(StatementFailed, match="/etc/passwd"):
        answer(guest, "select '/etc/passwd'::integer")

"""Readers get in and cannot get out; the writer alone decides when the file changes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.opening import ReaderConfig, WriterConfig, open_database, open_snapshot
from pondkeeper.errors import DatabaseReadOnly, DatabaseUnreadable, PondkeeperError

MEMORY_BYTES = 256 * 1024 * 1024


def writer_config(path: Path) -> WriterConfig:
    return WriterConfig(str(path), MEMORY_BYTES, 2, str(path.parent / "temp"), 2**30)


def wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


ESCAPES = [
    "ATTACH '{folder}/other.duckdb' AS other",
    "ATTACH ':memory:' AS other; COPY t TO '{folder}/out.csv'",
    "COPY t TO '{folder}/out.parquet'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "EXPORT DATABASE '{folder}/export'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('{folder}/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "INSTALL httpfs",
    "LOAD '{folder}/x.duckdb_extension'",
    "INSTALL httpfs FROM community",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET memory_limit = '100GB'",
    "SET threads = 64",
    "SET temp_directory = '{folder}'",
    "SET max_temp_directory_size = '1TB'",
    "SET TimeZone = 'Asia/Tokyo'",
    "RESET memory_limit",
    "SET python_enable_replacements = true",
    "SELECT * FROM somebody",
    "CREATE TABLE x (i INTEGER)",
    "INSERT INTO t (i) VALUES (1)",
    "DELETE FROM t",
    "DROP TABLE t",
    "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
    "CHECKPOINT other",
]


@pytest.mark.parametrize("sql", ESCAPES)
def test_a_reader_cannot_leave_its_file(
    guest: duckdb.DuckDBPyConnection, reader_config: ReaderConfig, tmp_path: Path, sql: str
) -> None:
    """Even past the gate of statements, no file, no network, no extension, no setting and no write is to be had."""
    somebody = [1, 2, 3]  # a name that DuckDB's Python would find in this frame
    assert somebody
    before = sorted(entry.name for entry in tmp_path.iterdir())

    with pytest.raises(duckdb.Error):
        guest.cursor().execute(sql.format(folder=tmp_path, path=reader_config.path)).fetchall()

    assert {"temp", *before} >= {entry.name for entry in tmp_path.iterdir()}


def test_a_plain_connection_does_all_that(tmp_path: Path) -> None:
    """The positive control: without the fence the same statements read and write files."""
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1) TO '{tmp_path}/out.csv'")
        assert connection.execute("SELECT count(*) FROM read_text('/etc/passwd')").fetchall() == [(1,)]

    assert (tmp_path / "out.csv").exists()


def test_what_was_asked_for_is_what_the_guest_has(guest: duckdb.DuckDBPyConnection) -> None:
    """Memory, threads, temp limit, time zone and the quiet progress bar hold on the cursors that guests get."""
    names = (
        "memory_limit",
        "threads",
        "max_temp_directory_size",
        "TimeZone",
        "enable_progress_bar",
        "lock_configuration",
    )
    [row] = guest.cursor().execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}").fetchall()

    assert row == ("512.0 MiB", 2, "1.0 GiB", "UTC", False, True)


def test_a_setting_that_does_not_take_is_found_at_the_open(
    reader_config: ReaderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are read back: were a release to ignore one, no guest would be let in, and the file let go of."""
    monkeypatch.setattr("pondkeeper.engine.opening.FENCED", {"enable_external_access": "maybe"})
    with pytest.raises(PondkeeperError):
        open_snapshot(reader_config)
    monkeypatch.undo()

    open_snapshot(reader_config).close()


def test_readers_share_a_snapshot_and_leave_nothing_beside_it(reader_config: ReaderConfig) -> None:
    """Two readers have the same file open; a WAL or a temp folder beside it does not appear."""
    program = f"import duckdb; print(duckdb.connect({reader_config.path!r}, read_only=True).sql('FROM t').count('i'))"
    connection = open_snapshot(reader_config)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    connection.close()

    assert "100000" in found.stdout

    assert [entry.name for entry in Path(reader_config.path).parent.iterdir()] == ["pond.duckdb"]


def test_a_missing_database_is_made_whole_and_private(tmp_path: Path) -> None:
    """It appears under its name with 0600, empty, of a storage version that both engines read, and with nothing beside."""
    path = tmp_path / "new" / "pond.duckdb"
    connection = open_database(writer_config(path))
    [(tags,)] = connection.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'pond'").fetchall()
    connection.close()

    assert "v1.5.0" in tags["storage_version"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {entry.name for entry in path.parent.iterdir()} <= {"pond.duckdb", "temp"}


def test_an_existing_database_is_not_made_anew(tmp_path: Path) -> None:
    """Opening again finds what was written, whoever wrote it."""
    path = tmp_path / "pond.duckdb"
    with duckdb.connect(str(path)) as plain:
        plain.execute("CREATE TABLE t AS SELECT 42 AS i")
    connection = open_database(writer_config(path))

    assert connection.execute("SELECT i FROM t").fetchall() == [(42,)]
    connection.close()


def state(path: Path) -> tuple[int, int]:
    """Size and time of the last change of the file, without opening it: that would drop DuckDB's lock."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def test_only_the_writers_own_checkpoint_folds_the_wal(tmp_path: Path) -> None:
    """Neither the size of the WAL, nor a commit of many rows, nor closing makes a checkpoint; CHECKPOINT does."""
    path = tmp_path / "pond.duckdb"
    connection = open_database(writer_config(path))
    connection.execute("CREATE TABLE t (i BIGINT, s VARCHAR)")
    connection.execute("CHECKPOINT")
    for _ in range(20):
        connection.execute("INSERT INTO t SELECT range, repeat('x', 20) FROM range(60000)")
    assert wal(path).stat().st_size > 20 * 1024 * 1024
    connection.close()
    assert wal(path).stat().st_size > 20 * 1024 * 1024

    connection = open_database(writer_config(path))
    connection.execute("CHECKPOINT")
    assert not wal(path).exists()
    assert connection.execute("SELECT count(*) FROM t").fetchall() == [(1_200_000,)]
    connection.close()


def test_a_wal_left_behind_is_folded_before_anything_else(tmp_path: Path) -> None:
    """What the writer finds at its open is checkpointed at once: on 1.5 index entries would be lost otherwise."""
    path = tmp_path / "pond.duckdb"
    connection = open_database(writer_config(path))
    connection.execute("CREATE TABLE t (i INTEGER); CREATE UNIQUE INDEX once ON t (i); INSERT INTO t VALUES (1)")
    connection.close()
    assert wal(path).exists()

    for value in (2, 3):
        connection = open_database(writer_config(path))
        assert not wal(path).exists()
        connection.execute(f"INSERT INTO t VALUES ({value})")
        connection.close()

    connection = open_database(writer_config(path))
    for value in (1, 2, 3):
        assert connection.execute(f"SELECT count(*) FROM t WHERE i = {value}").fetchall() == [(1,)]
        with pytest.raises(duckdb.ConstraintException):
            connection.execute(f"INSERT INTO t VALUES ({value})")
    connection.close()


def test_a_file_too_short_for_its_wal_is_unreadable(tmp_path: Path) -> None:
    """DuckDB meets the missing blocks while it replays, and calls that a transaction error: it is damage, not a statement's fault."""
    file = tmp_path / "pond.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE filler AS SELECT range AS i, md5(range::VARCHAR) AS s FROM range(150000)")
        connection.execute("CREATE TABLE t (i INTEGER PRIMARY KEY, j INTEGER)")
        connection.execute("INSERT INTO t SELECT range, 1 FROM range(20000)")
        connection.execute("CHECKPOINT")
        connection.execute("UPDATE filler SET s = upper(s) WHERE i % 10 = 0")  # the index comes to lie at the end of the file
        connection.execute("DELETE FROM t WHERE i % 7 = 0")
        connection.execute("CHECKPOINT")
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("INSERT INTO t SELECT range, 1 FROM range(100000, 101000)")
    os.truncate(file, file.stat().st_size // 2)

    with pytest.raises(DatabaseUnreadable) as raised:
        open_database(writer_config(file))
    assert str(tmp_path) not in raised.value.message


def test_the_writer_is_fenced_too(tmp_path: Path) -> None:
    """The writer writes its file, and reaches no other."""
    connection = open_database(writer_config(tmp_path / "pond.duckdb"))
    for sql in ("COPY (SELECT 1) TO '/tmp/x.csv'", "SELECT * FROM read_text('/etc/passwd')", "SET threads = 9"):
        with pytest.raises(duckdb.Error):
            connection.execute(sql)
    connection.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_read_only(tmp_path: Path) -> None:
    """A database that cannot be made says what permission is missing."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(DatabaseReadOnly):
        open_database(writer_config(folder / "pond.duckdb"))

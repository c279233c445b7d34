"""How a database file is opened: read-only and locked down for readers, sole owner of every checkpoint for the writer.

What is set here is read back from DuckDB before the connection is handed out: a setting that a release renamed or
silently ignored is found at the open and not by a guest.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from pondkeeper.engine.faults import translate
from pondkeeper.engine.preimage import keep_preimage
from pondkeeper.errors import DatabaseMissing, DatabaseUnavailable
from pondkeeper.files.durable import make_folder, sync_folder

NEW_FILE_STORAGE_VERSION: Final = "v1.5.0"
"""Both 1.5.5 and 2.0 read and write it, and it refuses a WAL that does not belong to its file; older ones load it."""

_NEVER: Final = 2**63 - 1

FENCED: Final[dict[str, str]] = {
    "enable_external_access": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
}


Connection = duckdb.DuckDBPyConnection  # the name by which other rooms annotate it, without importing duckdb


@dataclass(frozen=True)
class ReaderConfig:
    """What one reader may use while it has one snapshot open."""

    path: str
    memory_limit_bytes: int
    threads: int
    temp_directory: str
    temp_limit_bytes: int


@dataclass(frozen=True)
class WriterConfig:
    """What the writer of one database may use. `may_make`: whether a missing file is made.

    `preimage`: where to keep what the next checkpoint rewrites in place, unless the newest of `snapshots` has it.
    """

    path: str
    memory_limit_bytes: int
    threads: int
    temp_directory: str
    temp_limit_bytes: int
    may_make: bool = True
    preimage: Path | None = None
    snapshots: Path | None = None


def open_snapshot(config: ReaderConfig) -> duckdb.DuckDBPyConnection:
    """Open a snapshot read-only, fenced and with its configuration locked."""
    try:
        connection = duckdb.connect(config.path, read_only=True, config=_options(config))
        return _closed_on_error(connection, config, _lock_down)
    except duckdb.Error as error:
        raise translate(error) from error


def open_scratch(config: ReaderConfig) -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory, fenced and locked like a snapshot: for those who compute and keep nothing."""
    try:
        connection = duckdb.connect(":memory:", config=_options(config))
        return _closed_on_error(connection, config, _lock_down)
    except duckdb.Error as error:
        raise translate(error) from error


def open_beside(config: ReaderConfig) -> duckdb.DuckDBPyConnection:
    """An empty database in memory, fenced as a snapshot is; its configuration is still to be locked."""
    connection = duckdb.connect(":memory:", config=_options(config))
    connection.execute(f"SET max_temp_directory_size = '{config.temp_limit_bytes}B'")
    return connection


def open_database(config: WriterConfig) -> duckdb.DuckDBPyConnection:
    """Open a database read-write with automatic checkpoints off, after a CHECKPOINT of any WAL that was left behind."""
    path = Path(config.path)
    try:
        if not path.exists():
            if not config.may_make:
                raise DatabaseMissing(private=config.path)
            make_database(path)
        if config.preimage is not None and config.snapshots is not None:
            keep_preimage(path, config.preimage, config.snapshots)
        options = _options(config) | {"storage_compatibility_version": NEW_FILE_STORAGE_VERSION}
        connection = duckdb.connect(config.path, config=options)
        return _closed_on_error(connection, config, _take_over)
    except (duckdb.Error, OSError) as error:
        raise translate(error) from error


def _options(config: ReaderConfig | WriterConfig) -> dict[str, str | bool | int | float | list[str]]:
    """What must be said at the connect, because an instance takes it only there or opens the file by it."""
    return {
        **FENCED,
        "memory_limit": f"{config.memory_limit_bytes}B",
        "threads": str(config.threads),
        # Trap: readers of one file share `<file>.tmp` by default, and on 1.5 spilling at the same time crashes them.
        "temp_directory": config.temp_directory,
    }


def _closed_on_error(connection: duckdb.DuckDBPyConnection, config: Any, prepare: Any) -> duckdb.DuckDBPyConnection:
    """The connection, prepared; closed when the preparation fails, because an open one keeps its lock."""
    try:
        prepare(connection, config)
    except BaseException:  # Why: whatever ended it, nobody else can let go of the file.
        connection.close()
        raise
    return connection


def _take_over(connection: duckdb.DuckDBPyConnection, config: WriterConfig) -> None:
    connection.execute(f"SET wal_autocheckpoint = '{_NEVER // 1024}KiB'")
    # Why: past this many rows a commit would skip the WAL and write the file itself, while the copier reads it.
    connection.execute(f"SET auto_checkpoint_skip_wal_threshold = {_NEVER}")
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    left_behind = Path(config.path + ".wal").exists()
    _lock_down(connection, config)
    if left_behind:
        # Trap: 1.5 loses entries of secondary indexes when rows replayed from a WAL meet a second WAL.
        connection.execute("CHECKPOINT")


def _lock_down(connection: duckdb.DuckDBPyConnection, config: ReaderConfig | WriterConfig) -> None:
    # Trap: given at the connect, max_temp_directory_size is not enforced; set by SQL it is.
    connection.execute(f"SET max_temp_directory_size = '{config.temp_limit_bytes}B'")
    # Trap: after two seconds DuckDB draws a progress bar on stdout, even into a pipe.
    connection.execute("SET enable_progress_bar = false")
    # Trap: without GLOBAL it holds for this connection and not for its cursors.
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    _check(connection, config)


def _check(connection: duckdb.DuckDBPyConnection, config: ReaderConfig | WriterConfig) -> None:
    """Read back what keeps guests out; anything else than what was asked for is refused."""
    wanted = {
        **FENCED,
        "enable_progress_bar": "false",
        "lock_configuration": "true",
        "TimeZone": "UTC",
        "threads": str(config.threads),
        "temp_directory": config.temp_directory,
    }
    names = ", ".join(f"current_setting('{name}')::VARCHAR" for name in wanted)
    # Trap: a result that is not read to its end keeps its transaction open, and no CHECKPOINT gets past it.
    with connection.cursor() as cursor:  # Why: guests get cursors, and some settings do not reach those.
        [found] = cursor.execute(f"SELECT {names}").fetchall()
    wrong = [f"{name} is {is_!r}" for (name, should), is_ in zip(wanted.items(), found, strict=True) if is_ != should]
    if wrong:
        raise DatabaseUnavailable(
            f"DuckDB {duckdb.__version__} did not take a safety setting: {', '.join(wrong)}.",
            remedy="Install a DuckDB release that this Pondkeeper supports (1.5.5 or 2.0).",
        )


def make_database(path: Path) -> None:
    """Make an empty database that appears under its name whole, or not at all."""
    make_folder(path.parent)
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with duckdb.connect(str(temp), config={"storage_compatibility_version": NEW_FILE_STORAGE_VERSION}) as connection:
            connection.execute("CHECKPOINT")
        _sync_file(temp)
        try:
            os.link(temp, path)  # Why: unlike a rename it cannot replace a file that somebody made meanwhile.
        except FileExistsError:
            return
        sync_folder(path.parent)
    finally:
        temp.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    # Trap: only safe because nobody in this process has the file open in DuckDB (closing this would drop its lock).
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)

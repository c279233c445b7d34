"""The examination of one database: its file, its WAL, who has it, its snapshots."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from pondkeeper.cli.doctor import blocks, spool, wal
from pondkeeper.cli.doctor.finding import Finding, ok, problem, warning
from pondkeeper.cli.quantities import age_s, show_bytes, show_seconds
from pondkeeper.engine.fileformat import Headers, read_headers
from pondkeeper.errors import DatabaseUnreadable, PondkeeperError
from pondkeeper.files.locks import holders_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.local.known import is_own_child, serving_home, who
from pondkeeper.snapshots.listing import list_snapshots
from pondkeeper.writer.lease import current_holder, waiting_count

LONG_LEASE_S: Final = 3600.0
CLOCK_SLACK_S: Final = 5.0
READABLE: Final = {"1.5.": 68, "2.0.": 999}  # what 2.0 writes by default calls itself 999


def examine(paths: DatabasePaths, *, keeper_runs: bool, whole: bool = False) -> Iterator[Finding]:
    """Everything that can be said of a database without opening it in DuckDB; `whole`: read all of it, however large."""
    subject = paths.name
    if not paths.file.exists():
        yield warning(subject, "its file does not exist", "`pondkeeper serve` makes it, empty; or put it back.")
        return
    file = _file(subject, paths)
    yield file
    if file.level == "ok":
        yield blocks.examine(subject, paths, whole=whole)
    yield _writable(subject, paths)
    yield wal.examine(subject, paths)
    yield from wal.left_aside(subject, paths)
    yield from _holders(subject, paths, keeper_runs=keeper_runs)
    yield from _lease(subject, paths)
    yield from _claim(subject, paths, keeper_runs=keeper_runs)
    yield from _snapshots(subject, paths)
    yield from spool.examine(subject, paths)


def _file(subject: str, paths: DatabasePaths) -> Finding:
    """The headers. Trap: only a process that has no database open in DuckDB may read the file as bytes, as ours."""
    try:
        descriptor = os.open(paths.file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return problem(subject, f"its file cannot be read: {error.strerror}", "Give this user read permission on it.")
    try:
        headers = read_headers(descriptor)
    except PondkeeperError as error:
        return problem(subject, error.message, blocks.RESTORE if isinstance(error, DatabaseUnreadable) else error.remedy)
    finally:
        os.close(descriptor)
    return _described(subject, headers)


def _described(subject: str, headers: Headers) -> Finding:
    header = headers.active
    size = show_bytes(header.block_count * header.block_size_bytes)
    block = show_bytes(header.block_size_bytes)
    text = (
        f"a DuckDB file of storage version {headers.storage_version}, written by {headers.library_version or 'DuckDB'}: "
        f"{size} in blocks of {block}, checkpoint {header.iteration}"
    )
    if (newest := _newest_readable()) and headers.storage_version > newest:
        remedy = "Install the DuckDB that wrote it (`pip install -U duckdb`), or export it from there."
        return problem(subject, f"{text}; the DuckDB installed here reads versions up to {newest}", remedy)
    if not headers.is_known:
        remedy = "Snapshots of it are full copies until a Pondkeeper knows this version: `pip install -U pondkeeper`."
        return warning(subject, f"{text}; this storage version or block size is not known here", remedy)
    return ok(subject, text)


def _newest_readable() -> int | None:
    """The newest storage version that the DuckDB of this environment reads; None of a line that we do not know."""
    try:
        installed = metadata.version("duckdb")
    except metadata.PackageNotFoundError:
        return None
    return next((newest for line, newest in READABLE.items() if installed.startswith(line)), None)


def _writable(subject: str, paths: DatabasePaths) -> Finding:
    for path, what in ((paths.file, "file"), (paths.file.parent, "folder")):
        if not os.access(path, os.W_OK):
            return problem(subject, f"its {what} is not writable for this user", "Change its owner or its mode.")
    mode = paths.file.stat().st_mode & 0o777
    if mode & 0o002:
        return warning(
            subject, f"everybody may write its file (mode {mode:o})", "chmod o-w, or its contents are anybody's."
        )
    return ok(subject, f"its file and folder are writable (mode {mode:o})")


def _holders(subject: str, paths: DatabasePaths, *, keeper_runs: bool) -> Iterator[Finding]:
    holders = [holder for holder in holders_of(paths.file) if holder.kind == "posix"]
    if not holders:
        yield ok(subject, "no program has it open")
    for holder in holders:
        text = f"{who(holder.program, holder.pid)} has it open for {'writing' if holder.writes else 'reading'}"
        if (keeper_runs and is_own_child(holder.program)) or current_holder(paths) is not None:
            yield ok(subject, text)
        else:
            remedy = (
                "Writers wait until it closes the file; start it with `pondkeeper run --`, or let it open the snapshot."
            )
            yield warning(subject, f"{text}, and has not asked for the lease", remedy)


def _lease(subject: str, paths: DatabasePaths) -> Iterator[Finding]:
    holder, waiting = current_holder(paths), waiting_count(paths)
    if holder is None:
        yield ok(subject, "the lease is free")
        return
    text = f"the lease is held by {holder.describe()}; {waiting} waiting"
    held_for = age_s(holder.since) or 0.0
    if held_for > LONG_LEASE_S:
        yield warning(subject, f"{text}, for {show_seconds(held_for)} now", "Look whether that program still works.")
    else:
        yield ok(subject, text)


def _claim(subject: str, paths: DatabasePaths, *, keeper_runs: bool) -> Iterator[Finding]:
    home = serving_home(paths)
    if keeper_runs or home is None:
        return
    whose = next((f"{each.program} (pid {each.pid})" for each in holders_of(paths.claim_lock)), "another process")
    remedy = f"Use that one, with --home {home.root}: two keepers cannot serve one database."
    yield warning(subject, f"a keeper of another home serves it: {whose}", remedy)


def _snapshots(subject: str, paths: DatabasePaths) -> Iterator[Finding]:
    found = list_snapshots(paths)
    if not found:
        yield ok(subject, "no snapshot yet")
        return
    newest = found[0]
    size = sum(snapshot.size_bytes for snapshot in found)
    yield ok(subject, f"{len(found)} snapshots, {show_bytes(size)}; the newest is version {newest.version}")
    if not paths.published_by_name.exists():
        remedy = "`pondkeeper snapshot take` with a running keeper points them at the newest again."
        yield problem(subject, "the published links do not lead to a snapshot", remedy)
    written_at = newest.path.stat().st_mtime
    if written_at > time.time() + CLOCK_SLACK_S:
        ahead = show_seconds(written_at - time.time())
        yield warning(subject, f"its newest snapshot was made {ahead} in the future", "Set this machine's clock.")

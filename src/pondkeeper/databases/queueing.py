"""How a database's queue is made: the limits and the configuration of its writer, from the settings."""

from __future__ import annotations

from pondkeeper.databases.fencing import of_writer, writers_temp
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import FileState
from pondkeeper.settings import Settings
from pondkeeper.workers.spawning import Template
from pondkeeper.writer.desk import Publishing, WriterDesk, WriterLimits
from pondkeeper.writer.queue import WriteQueue


def make_queue(
    paths: DatabasePaths,
    settings: Settings,
    template: Template,
    publishing: Publishing,
    *,
    next_version: int,
    may_make: bool,
    known_state: FileState | None,
) -> WriteQueue:
    """The queue of a database, with a writer that is started when it is first needed."""
    writer = settings.writer
    limits = WriterLimits(
        memory_limit_bytes=writer.memory_limit_bytes,
        threads=writer.threads,
        temp_limit_bytes=writer.temp_limit_bytes,
        idle_close_s=writer.idle_close_s,
        kill_after_s=settings.readers.kill_after_s,
        max_waiting=writer.max_waiting,
        pause_ratio=settings.snapshots.pause_ratio,
    )
    config = {
        "file": str(paths.file),
        "home": str(paths.home),
        "idempotency_keep_s": writer.idempotency_keep_s,
        "temp_directory": str(writers_temp(paths)),
        "may_make": may_make,
    }
    make_folder(writers_temp(paths))
    desk = WriterDesk(
        template,
        config,
        limits,
        next_version=next_version,
        publishing=publishing,
        fence=of_writer(paths),
        known_state=known_state,
    )
    return WriteQueue(desk, limits)

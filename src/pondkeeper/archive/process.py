"""The process that has the archive open: reads snapshots, writes the store, and is let out to the network for a bucket only.

Messages in, answers out, one at a time:

    {"op": "open", "target", "key_file", "environment"}             → {"op": "opened"}
    {"op": "archive", "database", "version", "path", "created_at", "lineage", "since", "changed"}
        → {"op": "archived", "version", "blocks_hashed", "blocks_put", "block_bytes", "bytes_put", "elapsed_ms"}
        → {"op": "retired"}         the snapshot is not there any more
    {"op": "newest", "database"}                                    → {"op": "newest", "version"}
    {"op": "list", "database", "limit"}                             → {"op": "listed", "versions", "total", "oldest"}
    {"op": "take_out", "database", "version", "target"}             → {"op": "taken_out", "version", …}
    {"op": "prune", "retention", "dry_run"}                         → {"op": "pruned", "versions_removed", …}
    anything that fails                                             → {"op": "error", "code", "message", …}

Before an answer, once a second, `{"op": "progress", "done", "of"}`: it is alive.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.archive.archivist import Archivist, SnapshotRetired, Wanted
from pondkeeper.archive.opening import open_archive
from pondkeeper.archive.place import Place
from pondkeeper.archive.retention import Retention
from pondkeeper.errors import InvalidRequest, PondkeeperError
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen

PROGRESS_EVERY_S = 1.0

Message = dict[str, Any]


class Desk:
    """Takes messages, gives answers. The archive is opened by the first of them, and again after one that failed to."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._open = ExitStack()
        self._archivist: Archivist | None = None
        self._handlers: dict[str, Callable[[Message], Message]] = {
            "open": self._opened,
            "archive": self._archived,
            "newest": lambda message: {"op": "newest", "version": self._opener.newest_version(message["database"])},
            "list": lambda message: {"op": "listed", **self._opener.listed(message["database"], message["limit"])},
            "take_out": self._taken_out,
            "prune": self._pruned,
        }

    def answer(self, message: Message) -> Message:
        """The answer to a message, an error too; never raises."""
        started = time.perf_counter()
        try:
            handler = self._handlers.get(message.get("op", ""))
            if handler is None:
                raise InvalidRequest("The archiver does not know this operation.", op=message.get("op"))
            return {**handler(message), "elapsed_ms": (time.perf_counter() - started) * 1000}
        except SnapshotRetired:
            return {"op": "retired"}
        except PondkeeperError as error:
            return {"op": "error", **error.to_wire(with_private=True)}
        except Exception as error:  # noqa: BLE001  Why: what nobody foresaw must be answered, or the keeper waits for ever.
            return {"op": "error", **PondkeeperError(private=repr(error)).to_wire(with_private=True)}

    @property
    def _opener(self) -> Archivist:
        if self._archivist is None:
            raise InvalidRequest("No archive is open.")
        return self._archivist

    def _opened(self, message: Message) -> Message:
        place = msgspec.convert({name: message[name] for name in ("target", "key_file", "environment")}, Place)
        os.environ.update(place.environment)
        self._open.close()
        archive = self._open.enter_context(
            open_archive(place.target, Path(place.key_file) if place.key_file else None)
        )
        self._archivist = Archivist(archive)
        return {"op": "opened"}

    def _archived(self, message: Message) -> Message:
        wanted = msgspec.convert({name: value for name, value in message.items() if name != "op"}, Wanted)
        return {"op": "archived", **self._opener.archive(wanted, self._progress())}

    def _taken_out(self, message: Message) -> Message:
        target = Path(message["target"])
        return {
            "op": "taken_out",
            **self._opener.take_out(message["database"], message["version"], target, self._progress()),
        }

    def _pruned(self, message: Message) -> Message:
        retention = msgspec.convert(message["retention"], Retention)
        return {"op": "pruned", **self._opener.prune(retention, self._progress(), dry_run=message["dry_run"])}

    def _progress(self) -> Callable[[int, int], None]:
        """Told of each step by any thread, it tells the keeper once a second."""
        lock, told_at = threading.Lock(), time.monotonic()

        def on_progress(done: int, of: int) -> None:
            nonlocal told_at
            if time.monotonic() - told_at < PROGRESS_EVERY_S:
                return
            with lock:
                if time.monotonic() - told_at >= PROGRESS_EVERY_S:
                    self._tell({"op": "progress", "done": done, "of": of})
                    told_at = time.monotonic()

        return on_progress


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:  # noqa: ARG001  Why: the form of entries
    """Serve messages until the keeper closes its end; when it dies, end at once: a half-written version is nobody's."""
    listen(control, lambda number: None)
    desk = Desk(pipe.send)
    try:
        while (message := pipe.receive()) is not None:
            pipe.send(desk.answer(message))
    except (BrokenPipeError, ConnectionResetError):  # the keeper is gone: nobody is left to tell
        return

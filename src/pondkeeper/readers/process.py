"""The reader process: one read-only query at a time on a snapshot; it may be killed at any moment.

Messages in: `open` (a snapshot, while idle), `let_go` of it (no answer) and `query`.
Messages out: `opened`, `head` + data + `end`, or `error`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from itertools import chain
from typing import Any

from pondkeeper.engine.faults import translate
from pondkeeper.engine.mirror import Grants, Mirror
from pondkeeper.engine.opening import Connection, ReaderConfig, open_snapshot
from pondkeeper.engine.render.answer import Answer, render
from pondkeeper.engine.render.known import KnownStatements
from pondkeeper.errors import PondkeeperError
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen

SNAPSHOT_GONE = {"op": "gone"}
SMALL_ANSWER_BYTES = 128 * 1024
MOST_MIRRORS = 8


class Reader:
    """The one connection of this process and the query that it runs."""

    def __init__(self, pipe: Pipe, config: dict[str, Any]) -> None:
        self._pipe = pipe
        self._temp_directory: str = config["temp_directory"]
        self._temp_limit_bytes: int = config["temp_limit_bytes"]
        self._connection: Connection | None = None
        self._opened: ReaderConfig | None = None
        self._running: tuple[int, Connection] | None = None
        self._lock = threading.Lock()
        self._known = KnownStatements()
        self._mirrors: OrderedDict[Grants, Mirror] = OrderedDict()

    def interrupt(self, number: int) -> None:
        """Stop request `number` if it is the one that runs."""
        with self._lock:
            if self._running is not None and self._running[0] == number:
                self._running[1].interrupt()

    def run(self) -> None:
        """Serve until the keeper closes the pipe."""
        while (message := self._pipe.receive()) is not None:
            try:
                if message["op"] == "open":
                    self._open(message["snapshot"])
                    self._pipe.send({"op": "opened"})
                elif message["op"] == "let_go":
                    self._close()
                else:
                    self._query(message)
            except FileNotFoundError:
                self._pipe.send(SNAPSHOT_GONE)
            except Exception as error:  # noqa: BLE001  Why: whatever the engine raises is the answer to this request.
                self._report(error)

    def _report(self, error: Exception) -> None:
        refused = translate(error)
        self._pipe.send({"op": "error", "error": refused.to_wire(with_private=True)})
        if getattr(refused, "fatal", False):
            raise SystemExit(1)

    def _open(self, snapshot: dict[str, Any]) -> Connection:
        """The connection on the snapshot asked for, opened anew unless it is the one we have."""
        config = ReaderConfig(
            path=snapshot["path"],
            memory_limit_bytes=snapshot["memory_limit_bytes"],
            threads=snapshot["threads"],
            temp_directory=self._temp_directory,
            temp_limit_bytes=self._temp_limit_bytes,
        )
        if self._connection is None or config != self._opened:
            self._close()
            if not os.path.exists(config.path):
                raise FileNotFoundError(config.path)
            self._connection = open_snapshot(config)
            self._known = KnownStatements()
            self._opened = config
        return self._connection

    def _close(self) -> None:
        while self._mirrors:
            self._mirrors.popitem()[1].close()
        if self._connection is not None:
            self._connection.close()
            self._connection = self._opened = None

    def _mirror(self, connection: Connection, grants: Grants) -> Mirror:
        """The mirror for a key that may read some tables; those used last are kept as long as the snapshot is open."""
        assert self._opened is not None
        mirror = self._mirrors.get(grants)
        if mirror is None:
            while len(self._mirrors) >= MOST_MIRRORS:
                self._mirrors.popitem(last=False)[1].close()
            mirror = self._mirrors[grants] = Mirror(connection, self._opened, grants)
        self._mirrors.move_to_end(grants)
        return mirror

    def _runs(self, number: int, on: Connection | None) -> None:
        with self._lock:
            self._running = None if on is None else (number, on)

    def _query(self, message: dict[str, Any]) -> None:
        connection = self._open(message["snapshot"])
        cursor = source = connection.cursor()
        number: int = message["number"]
        self._runs(number, cursor)
        try:
            statement = self._known.statement(cursor, message["sql"])
            known = self._known
            if (listed := message.get("grants")) is not None:
                mirror = self._mirror(connection, tuple((schema, table) for schema, table in listed))
                self._runs(number, mirror.connection)
                if mirror.answers(statement, message["parameters"]):
                    source, known = mirror.connection, KnownStatements()
                else:
                    self._runs(number, cursor)
            answer = render(
                source,
                statement,
                message["parameters"],
                format=message["format"],
                max_rows=message["max_rows"],
                max_bytes=message["max_bytes"],
                version=message["snapshot"]["version"],
                known=known,
            )
            self._send(answer)
        finally:
            self._runs(number, None)
            cursor.close()

    def _send(self, answer: Answer) -> None:
        """Send the answer as it is made; one that is small in one piece."""
        chunks = answer.chunks()
        first: list[bytes | memoryview] = []
        size_bytes = 0
        for chunk in chunks:
            first.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > SMALL_ANSWER_BYTES:
                break
        else:
            self._pipe.send_answer(_head(answer), first, _end(answer))
            return
        self._pipe.send(_head(answer))
        for chunk in chain(first, chunks):
            self._pipe.send_data(chunk)
        self._pipe.send(_end(answer))


def _head(answer: Answer) -> dict[str, Any]:
    return {"op": "head", "content_type": answer.content_type}


def _end(answer: Answer) -> dict[str, Any]:
    ending = answer.ending
    assert ending is not None  # the chunks are exhausted
    return {"op": "end", "row_count": ending.row_count, "truncated": ending.truncated, "limit": ending.limit}


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point, called by the template in the forked child."""
    reader = Reader(pipe, config)
    listen(control, reader.interrupt)
    try:
        pipe.send({"op": "ready"})
        reader.run()
    except (BrokenPipeError, ConnectionResetError, PondkeeperError):  # the keeper is gone: nobody is left to tell
        return

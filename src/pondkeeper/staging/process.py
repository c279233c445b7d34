"""The stager process: reads bodies from outside, so that neither the keeper nor the writer has to.

Messages in:  stage {…, see engine/intake/staging.Job}  shape {snapshot, schema, table}
Messages out: ready  staged {…, see engine/intake/staging.Staged}  shape {shape}  gone  error {error}

It opens what a message names and nothing else; its own database is in memory, and external access is off in it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import msgspec

from pondkeeper.engine.faults import translate
from pondkeeper.engine.intake.shape import table_shape
from pondkeeper.engine.intake.staging import Job, stage
from pondkeeper.engine.opening import Connection, ReaderConfig, open_scratch, open_snapshot
from pondkeeper.errors import OutOfMemory, PondkeeperError
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen


class Stager:
    """One body at a time, each on a cursor of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._scratch: Connection | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message. Raises SystemExit after what makes this process unfit for the next one."""
        if message["op"] == "shape":
            return self._shape(message)
        if self._scratch is None:
            self._scratch = open_scratch(self._reader_config(":memory:"))
        cursor = self._scratch.cursor()
        try:
            staged = stage(cursor, msgspec.convert(message["job"], Job))
        finally:
            cursor.close()
        return {"op": "staged", "staged": msgspec.to_builtins(staged)}

    def _shape(self, message: dict[str, Any]) -> dict[str, Any]:
        """The shape of a table in a snapshot; `gone` when that has been taken back meanwhile."""
        if not os.path.exists(message["snapshot"]):
            return {"op": "gone"}
        connection = open_snapshot(self._reader_config(message["snapshot"]))
        try:
            cursor = connection.cursor()
            shape = table_shape(cursor, message["schema"], message["table"])
            cursor.close()
        finally:
            connection.close()
        return {"op": "shape", "shape": shape.to_wire() if shape is not None else None}

    def _reader_config(self, path: str) -> ReaderConfig:
        return ReaderConfig(
            path=path,
            memory_limit_bytes=self._config["memory_limit_bytes"],
            threads=self._config["threads"],
            temp_directory=self._config["temp_directory"],
            temp_limit_bytes=self._config["temp_limit_bytes"],
        )


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point, called by the template in the forked child. It ends with the pipe, or by a kill."""
    listen(control, lambda number: None)
    stager = Stager(config)
    try:
        pipe.send({"op": "ready"})
        while (message := pipe.receive()) is not None:
            pipe.send(_answered(stager, message))
    except (BrokenPipeError, ConnectionResetError, PondkeeperError):  # the keeper is gone: nobody is left to tell
        return


def _answered(stager: Stager, message: dict[str, Any]) -> dict[str, Any]:
    try:
        return stager.answer(message)
    except Exception as error:  # noqa: BLE001  Why: whatever a body makes the engine raise is the answer to its client.
        refused = translate(error)
        is_spent = refused.fatal or isinstance(refused, OutOfMemory)
        return {"op": "error", "error": refused.to_wire(with_private=True), "is_spent": is_spent}

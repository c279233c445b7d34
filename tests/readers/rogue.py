"""Readers that hostile SQL has taken over, and readers that die at birth: entry `main`, forked by a real template."""

from __future__ import annotations

import os
import socket
from typing import Any

from pondkeeper.workers.frames import DATA, HEADER, Pipe, encode

HEAD = {"op": "head", "content_type": "text/csv"}
END = {"op": "end", "row_count": 1, "truncated": False, "limit": None}


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    if os.path.exists(config["temp_directory"] + "/../die-at-birth"):
        os._exit(1)
    pipe.send({"op": "ready"})
    while (message := pipe.receive()) is not None:
        if message["op"] == "open":
            pipe.send({"op": "opened"})
        else:
            answer(pipe, message["sql"])


SAYS: dict[str, list[dict[str, Any] | bytes]] = {
    "honest": [HEAD, HEADER.pack(DATA, 2) + b"1\n", END],
    "data before the head": [HEADER.pack(DATA, 100) + b"x" * 100],
    "a head without a type": [{"op": "head"}],
    "no op": [{"hello": "keeper"}],
    "an unknown op": [{"op": "__class__"}],
    "an end at once": [END],
    "an error without an error": [{"op": "error"}],
    "an error that fits no error": [{"op": "error", "error": {"code": "internal", "self": 1}}],
    "an error that is a list": [{"op": "error", "error": [1, 2]}],
    "an end of wrong types": [HEAD, {"op": "end", "row_count": "many", "truncated": 7, "limit": {}}],
    "no frame at all": [b"\xff" * 64],
    "a frame of a terabyte": [HEADER.pack(9, 2**32 - 1)],
    "data for ever": [HEAD, HEADER.pack(DATA, 2**32 - 1), *([b"x" * 65536] * 60_000)],
}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return type(error).__name__.encode()


def answer(pipe: Pipe, sql: str) -> None:
    """Answer as the SQL says, in one piece where that fits; `read PATH` says what comes of reading that file."""
    if sql.startswith("read "):
        read = _read(sql.removeprefix("read "))
        said = b"".join([encode(HEAD), HEADER.pack(DATA, len(read)), read, encode(END)])
        pipe._socket.sendall(said)
        return
    for said in SAYS[sql]:
        pipe._socket.sendall(said if isinstance(said, bytes) else encode(said))

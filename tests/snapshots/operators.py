"""What the tests of this room work with: a real copier process, a writer, and a look from a fresh process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.frames import HEADER, decode, encode

_CHILD = """
import socket, sys, json
from pondkeeper.workers.frames import Pipe
from pondkeeper.snapshots.process import main
pipe, control = (socket.socket(fileno=int(n)) for n in sys.argv[1:3])
main(Pipe(pipe), control, json.loads(sys.argv[3]))
"""


class CopierProcess:
    """A copier in a process of its own, spoken to in frames."""

    def __init__(self, paths: DatabasePaths, *, prepare: bool = True, prelude: str = "") -> None:
        self.paths = paths
        self._config = {"prepare": prepare}
        self._prelude = prelude
        self.start()

    def start(self) -> None:
        self._pipe, pipe = socket.socketpair()
        self._control, control = socket.socketpair()
        numbers = [str(pipe.fileno()), str(control.fileno())]
        command = [sys.executable, "-c", self._prelude + _CHILD, *numbers, json.dumps(self._config)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, pass_fds=[pipe.fileno(), control.fileno()], env=environment)
        pipe.close()
        control.close()
        self.ask({"op": "ping"})

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and wait for the answer; an error is raised."""
        self.send(message)
        return self.answer()

    def send(self, message: dict[str, Any]) -> None:
        self._pipe.sendall(encode(message))

    def answer(self) -> dict[str, Any]:
        header = self._exactly(HEADER.size)
        answer = decode(self._exactly(HEADER.unpack(header)[1]))
        if answer.pop("op") == "error":
            raise PondkeeperError.from_wire(answer)
        return answer

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._pipe.recv(length - len(data))
            if not more:
                raise ConnectionError("the copier is gone")
            data += more
        return data

    def publish_message(self, version: int, keep: int = 3, **more: Any) -> dict[str, Any]:
        links = [str(self.paths.published), str(self.paths.published_by_name)]
        where = {"source": str(self.paths.file), "snapshots": str(self.paths.snapshots), "links": links}
        return {"op": "publish", "version": version, **where, "keep": keep, **more}

    def publish(self, version: int, keep: int = 3, **more: Any) -> dict[str, Any]:
        return self.ask(self.publish_message(version, keep, **more))

    def retire(self, keep: int) -> list[int]:
        where = {"source": str(self.paths.file), "snapshots": str(self.paths.snapshots)}
        return list(self.ask({"op": "retire", **where, "keep": keep})["retired"])

    def verify(self, path: Path) -> dict[str, Any]:
        return self.ask({"op": "verify", "path": str(path)})

    def interrupt(self) -> None:
        self._control.sendall(b"i")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._pipe.close()
        self._control.close()

    def stop(self) -> int:
        """Close our ends, as a keeper that ends does; returns the exit code."""
        self._pipe.close()
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout=60)
        self.kill()
        raise AssertionError("the copier did not end with its keeper")


def open_database(
    paths: DatabasePaths, *, storage_version: str = "v1.4.0", block_size: int = 262144
) -> duckdb.DuckDBPyConnection:
    """A writer as Pondkeeper's: it alone decides when to checkpoint. The database is its default catalog."""
    paths.file.parent.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(config={"checkpoint_threshold": "1TB", "threads": 2})
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    options = f"storage_version '{storage_version}', block_size {block_size}"
    connection.execute(f"ATTACH '{paths.file}' AS {paths.name} ({options})")
    connection.execute(f"USE {paths.name}")
    return connection


def look(path: Path, *queries: str) -> list[Any]:
    """The first row of each query, asked by a fresh process that opens the file read-only as any program would."""
    code = (
        "import duckdb, json, sys\n"
        "c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(json.dumps([c.execute(q).fetchone() for q in sys.argv[2:]], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *queries], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def used_blocks_that_differ(source: Path, snapshot: Path) -> list[int]:
    """The used blocks in which two files differ, read by another process: ours may have the source open (lock trap)."""
    code = (
        "import os, sys\n"
        "from pondkeeper.engine.fileformat import *\n"
        "a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:])\n"
        "h = read_headers(a); assert read_headers(b).raw == h.raw; use = read_block_use(a, h)\n"
        "n = h.active.block_size_bytes\n"
        "same = lambda i: os.pread(a, n, block_offset(i, n)) == os.pread(b, n, block_offset(i, n))\n"
        "print([i for i in range(use.block_count) if use.is_used(i) and not same(i)])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(snapshot)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))

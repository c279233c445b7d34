"""What must not get out, be made or be reached: files with canaries, a folder that is watched, a listener that counts."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb

from campaigns.vectors import Targets

TOKEN = "CANARY-7f3a9c"  # Why: it is the bait
MARKS = (TOKEN, "root:x:0", "PATH=/", "[stack]", "[vdso]")
"""What an answer has in it when something leaked: a canary, or what only /etc/passwd and /proc hold."""


class Listener:
    """Counts who connects; answers nobody."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


class Bait:
    """A folder outside every folder of the keeper: secrets to be read, and a place where nothing may appear."""

    def __init__(self, folder: Path, other: Path, control: Path) -> None:
        self.folder = folder
        self.made = folder / "made"
        self.made.mkdir(parents=True)
        (folder / "secret.txt").write_text(f"{TOKEN} in a text\n")
        (folder / "secret.csv").write_text(f"n,word\n1,{TOKEN}\n")
        (folder / "secret.json").write_text(json.dumps([{"n": 1, "word": TOKEN}]))
        with duckdb.connect(str(folder / "secret.duckdb")) as connection:
            connection.execute(f"CREATE TABLE t AS SELECT '{TOKEN}' AS word")
            connection.execute(f"COPY t TO '{folder}/secret.parquet'")
        self.other = other
        self.control = control
        self._before = self._files()

    def targets(self, url: str) -> Targets:
        """What the vectors are to aim at."""
        place = self.folder
        return Targets(
            text=str(place / "secret.txt"),
            csv=str(place / "secret.csv"),
            json=str(place / "secret.json"),
            parquet=str(place / "secret.parquet"),
            database=str(place / "secret.duckdb"),
            globbed=str(place / "*"),
            made=str(self.made),
            other=str(self.other),
            control=str(self.control),
            url=url,
        )

    def changes(self) -> list[str]:
        """What was made, changed or removed since, and forgotten with this call."""
        before, self._before = self._before, self._files()
        names = before.keys() | self._before.keys()
        return sorted(name for name in names if before.get(name) != self._before.get(name))

    def _files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in self.folder.rglob("*")}


def leaks(answer: str, sql: str) -> list[str]:
    """What stands in an answer that nobody may get; what the asker has written himself is no leak."""
    return [mark for mark in MARKS if mark in answer and mark not in sql]

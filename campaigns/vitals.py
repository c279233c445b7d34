"""What a keeper has taken of the machine, and how quickly it answers somebody who asks little."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.keeper import KeeperProcess
from tests.support.processes import rss_bytes, tree

QUIET_SQL = "SELECT g, count(*) FROM pebbles GROUP BY g ORDER BY g LIMIT 5"
MIB = 1 << 20


@dataclass(frozen=True)
class Vitals:
    """The keeper and its house at one moment."""

    rss_bytes: int
    descriptors: int
    threads: int
    children: tuple[str, ...]
    temp_folders: int
    temp_bytes: int
    snapshots: int
    template_descriptors: int

    @classmethod
    def of(cls, keeper: KeeperProcess) -> Vitals:
        pids = tree(keeper.pid)
        names = sorted(_name(pid) for pid in pids[1:])
        template = [pid for pid in pids[1:] if not _name(pid).startswith("pond-")]
        files = [path for path in keeper.home.temp.rglob("*") if path.is_file()]
        return cls(
            rss_bytes=rss_bytes(keeper.pid),
            descriptors=_descriptors(keeper.pid),
            threads=len(os.listdir(f"/proc/{keeper.pid}/task")),
            children=tuple(names),
            temp_folders=sum(path.name.startswith("reader-") for path in keeper.home.temp.iterdir()),
            temp_bytes=sum(_size(path) for path in files),
            snapshots=sum(path.name.isdigit() for path in keeper.database.snapshots.iterdir()),
            template_descriptors=sum(_descriptors(pid) for pid in template),
        )

    def leaks_since(self, before: Vitals, *, most_bytes: int) -> list[str]:
        """What is there now and was not before, in words. Threads of a pool that grows to its bound are none."""
        wrong = []
        if self.rss_bytes - before.rss_bytes > most_bytes:
            wrong.append(f"the keeper grew by {(self.rss_bytes - before.rss_bytes) / MIB:.0f} MiB")
        if self.descriptors > before.descriptors + 2:
            wrong.append(f"{before.descriptors} descriptors became {self.descriptors}")
        if self.template_descriptors > before.template_descriptors:
            wrong.append(f"the template's {before.template_descriptors} descriptors became {self.template_descriptors}")
        if len(self.children) > len(before.children) + 2:  # a writer, and a stager or a copier, come and go
            wrong.append(f"children {before.children} became {self.children}")
        if self.temp_folders > before.temp_folders or self.temp_bytes > before.temp_bytes:
            wrong.append(f"temp files stay: {self.temp_folders} folders, {self.temp_bytes} bytes")
        if self.snapshots > before.snapshots + 4:
            wrong.append(f"{before.snapshots} snapshots became {self.snapshots}")
        return wrong


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class QuietClient:
    """Asks something small now and then on a connection of its own; what came of it, and after how long."""

    def __init__(self, port: int, key: str, pause_s: float = 0.02) -> None:
        self.latencies_s: list[float] = []
        self.outcomes: list[int] = []
        self._port, self._pause_s = port, pause_s
        self._headers = {"Authorization": f"Bearer {key}"}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="quiet client")

    def __enter__(self) -> QuietClient:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _live(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            while not self._stop.wait(self._pause_s):
                began = time.monotonic()
                self.outcomes.append(self._asked(connection))
                self.latencies_s.append(time.monotonic() - began)
        finally:
            connection.close()

    def _asked(self, connection: http.client.HTTPConnection) -> int:
        try:
            connection.request("POST", "/v1/query", json.dumps({"sql": QUIET_SQL}), self._headers)
            with connection.getresponse() as response:
                response.read()
                return response.status
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0

"""What a keeper has taken of the machine, and how quickly it answers somebody who asks little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.keeper import KeeperProcess, program_environment
from tests.support.processes import rss_bytes, tree

ENDS_WITHIN_S = 120.0
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
    """Asks something small now and then, in a process of its own; what came of it, and after how long, once it has ended.

    Why a process: beside whoever throws bombs of a hundred megabytes it would measure Python's lock.
    """

    def __init__(self, port: int, key: str, pause_s: float = 0.02) -> None:
        self.latencies_s: list[float] = []
        self.outcomes: list[int] = []
        self._command = [sys.executable, "-m", "campaigns.quiet", "--port", str(port), "--pause", str(pause_s)]
        self._key = key

    def __enter__(self) -> QuietClient:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, env=program_environment())
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._key + "\n")
        self._process.stdin.flush()
        self._process.stdout.readline()  # it has its first answer
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        said, _ = self._process.communicate(timeout=ENDS_WITHIN_S)
        told = json.loads(said)
        self.latencies_s, self.outcomes = told["latencies_s"], told["outcomes"]

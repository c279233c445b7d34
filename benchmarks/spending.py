"""Who spent the processor's time: the CPU of a keeper and each kind of its children, and the price of an fsync."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.processes import ProcessStat, tree

FSYNCS = 50


@dataclass
class Spending:
    """CPU seconds by kind of process (keeper, writer, reader, copier …), and the time that went by."""

    by_process: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def total_s(self) -> float:
        return sum(self.by_process.values())


@contextmanager
def spending(keeper_pid: int) -> Iterator[Spending]:
    """What the keeper's processes spend meanwhile; those that end meanwhile are not in it."""
    found = Spending()
    before = tree(keeper_pid)
    yield found
    for pid, stat in tree(keeper_pid).items():
        earlier = before.get(pid)
        kind = _kind(stat, keeper_pid)
        found.by_process[kind] = found.by_process.get(kind, 0.0) + stat.cpu_s - (earlier.cpu_s if earlier else 0.0)


def _kind(stat: ProcessStat, keeper_pid: int) -> str:
    if stat.pid == keeper_pid:
        return "keeper"
    try:
        name = Path(f"/proc/{stat.pid}/comm").read_text().strip()
    except OSError:
        return "other"
    return name.removeprefix("pond-").split("-")[0].rstrip("0123456789") or "other"


def fsync_s(folder: Path) -> float:
    """The median time of an fdatasync after 4 KiB were appended to a file in that folder, as a commit does."""
    times = []
    path = folder / "fsync.probe"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(FSYNCS):
            os.write(descriptor, b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return median(times)

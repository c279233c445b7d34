"""Kills one process at the right moment: watches files for the moment that was named, and strikes at once.

    python -m campaigns.striker        one JSON order per line on stdin, one JSON report per line on stdout

It is a process of its own because the clients' threads would keep a thread from running for milliseconds. It looks only by
`stat` and at folders: opening the database file would be the lock trap's business.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.keeper import program_environment

GIVE_UP_S = 1.5
BETWEEN_LOOKS_S = 0.0001

# What is watched for each moment. `commit`: the WAL grows; `checkpoint`: the file itself is written; `folded`: the WAL
# is cut or gone; `copy`: the copier begins or shows a version; `lease`: somebody takes or gives back the lease.
MOMENTS = ("random", "commit", "checkpoint", "folded", "copy", "lease", "ticket", "successor")


class Striker:
    """The keeper of the killing process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaigns.striker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=program_environment(),
        )

    def strike(self, moment: str, pid: int, delay_s: float, **places: str) -> dict[str, Any]:
        """Wait for the moment, then `delay_s`, then kill -9: `{"seen": …, "killed": …, "waited_s": …}`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"moment": moment, "pid": pid, "delay_s": delay_s, "places": places}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the striker has died")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def main() -> None:
    """Carry out orders until stdin ends."""
    for line in sys.stdin:
        print(json.dumps(_carry_out(json.loads(line))), flush=True)


def _carry_out(order: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    pid: int | None = order["pid"]
    if order["moment"] == "successor":
        pid = _successor(order["pid"], began + GIVE_UP_S)
        seen = pid is not None
    else:
        seen = order["moment"] == "random" or _comes(_sight_of(order["moment"], order["places"]), began + GIVE_UP_S)
    _pause(order["delay_s"])
    return {"seen": seen, "killed": pid is not None and _kill(pid), "waited_s": round(time.monotonic() - began, 4)}


def _pause(delay_s: float) -> None:
    """Why not one sleep: the kernel adds 50 µs and more to it, which is as long as some of the moments last."""
    until = time.monotonic() + delay_s
    if delay_s > 0.002:
        time.sleep(delay_s - 0.001)
    while time.monotonic() < until:
        pass


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _comes(sight: Callable[[], bool], give_up_at: float) -> bool:
    while not sight():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(BETWEEN_LOOKS_S)
    return True


def _sight_of(moment: str, places: dict[str, str]) -> Callable[[], bool]:
    wal, file = places["file"] + ".wal", places["file"]
    if moment in ("commit", "folded"):
        return _Sizes(wal, grows=moment == "commit")
    if moment == "ticket":
        return lambda: any(name.endswith(".ticket") for name in _names(places["tickets"]))
    watched = {"checkpoint": file, "copy": places["snapshots"], "lease": places["lease"]}[moment]
    before = _state(watched)
    return lambda: _state(watched) != before


class _Sizes:
    """Whether a file has grown, or shrunk, since the last look."""

    def __init__(self, path: str, *, grows: bool) -> None:
        self._path = path
        self._grows = grows
        self._last = _size(path)

    def __call__(self) -> bool:
        last, self._last = self._last, _size(self._path)
        return self._last > last if self._grows else self._last < last


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _state(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _successor(keeper: int, give_up_at: float) -> int | None:
    """Kill the keeper's writer, and wait for the one that comes after it."""
    first = writer_of(keeper)
    if first is None or not _kill(first):
        return None
    while time.monotonic() < give_up_at:
        if (pid := writer_of(keeper)) not in (None, first):
            return pid
        time.sleep(BETWEEN_LOOKS_S)
    return None


def writer_of(keeper: int) -> int | None:
    """The pid of the keeper's writer process; None when there is none right now."""
    try:
        children = [int(pid) for task in Path(f"/proc/{keeper}/task").iterdir() for pid in (task / "children").read_text().split()]
    except OSError:
        return None
    return next((pid for pid in children if _name(pid).startswith("pond-writer")), None)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    main()

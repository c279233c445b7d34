"""Processes that descend from this one, as the kernel shows them: found, ended, and their deaths taken note of."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path


def end(pids: Iterable[int], number: signal.Signals) -> None:
    """Send them the signal; a stopped one is woken, so that it can hear it."""
    for pid in pids:
        for each in (number, signal.SIGCONT):
            try:
                os.kill(pid, each)
            except (ProcessLookupError, PermissionError):  # it has ended; or it is another user's, by sudo
                break


def reap(pid: int) -> int | None:
    """Take note of every child that has ended; the status of `pid` if it is among them."""
    status = None
    while True:
        try:
            ended, its_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if ended == 0:
            return status
        if ended == pid:
            status = its_status


def descendants() -> list[int]:
    """The living processes that descend from this one, also those that have left its session."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent_of(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    line = [os.getpid()]
    while line:
        born = children.get(line.pop(), [])
        found += born
        line += born
    return found


def _parent_of(entry: Path) -> int | None:
    """The parent of a living process; None of a dead one."""
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)


def started_at_ticks(pid: int) -> int | None:
    """When the process was started, in the kernel's ticks: with its number, what names it for good. None of a dead one."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])

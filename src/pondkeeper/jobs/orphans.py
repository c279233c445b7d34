"""What outlived the supervisor of its run: found by the mark in its environment, and killed. It blocks for milliseconds.

A supervisor that is killed takes its own child with it (the kernel sees to that), but not that one's children. Each process of
a run carries `PONDKEEPER_RUN=<id>` from its birth, and a pidfd names it while we look and kill, so no number can be reused.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

GONE_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.02


def end_orphans(run_id: str) -> int:
    """Kill every process of the run; how many there were. Only for a run whose supervisor is dead."""
    killed = 0
    give_up_at = time.monotonic() + GONE_TIMEOUT_S
    while time.monotonic() < give_up_at:
        found = _kill_all(f"PONDKEEPER_RUN={run_id}".encode())
        if not found:
            return killed
        killed += found
        time.sleep(_PAUSE_S)  # Why again: what was killed may have had a child that was being born.
    return killed


def bury(session: int | None) -> None:
    """Take note of the dead of a run that became our children when their supervisor died (the keeper is a subreaper).

    A session has the number of its leader, which was the supervisor.
    """
    for pid in _numbers():
        words = _stat(pid)
        if words and words[0] == "Z" and int(words[1]) == os.getpid() and int(words[3]) == session:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # Why: somebody else of this process was faster.
                continue


def _kill_all(mark: bytes) -> int:
    killed = 0
    for pid in _numbers():
        with _held(pid) as descriptor:
            if descriptor is not None and pid != os.getpid() and _is_marked(pid, mark):
                killed += _kill(descriptor, pid)
    return killed


def _kill(descriptor: int, pid: int) -> int:
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return 0
    select.select([descriptor], [], [], 1.0)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # Why: it is somebody else's child, who will take note of it.
        pass
    return 1


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A descriptor that is this process and no later one of its number; None when it has gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # Why: it has gone, or is another user's, whose processes are none of our runs.
        return False


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

"""Kills a process as it enters the system call that was named: `strace` sends the signal, and its log says where it was.

The call itself is not carried out: what is killed at a rename has not renamed, and what is killed at the flush behind it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns.injecting import Tracer

GIVE_UP_S = 2.0
# Each call by all the names that the C library gives it on different machines.
CALLS = {
    "create": ("openat", "open"),
    "write": ("write", "pwrite64"),
    "cut": ("ftruncate",),
    "seal": ("fchmod",),
    "flush": ("fsync", "fdatasync"),
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat"),
    "symlink": ("symlink", "symlinkat"),
    "remove": ("unlink", "unlinkat", "rmdir"),
    "folder": ("mkdir", "mkdirat"),
    "read": ("pread64",),
    "tell": ("sendmsg", "sendto"),
}
# Why not "killed by SIGKILL": the children of what is traced end so, too. A call without a result is one that killed.
_ENDED = re.compile(r"^(?:(\d+) +)?(?:<\.\.\. (\w+) resumed>|\w+\().*= \?", re.MULTILINE)
_CALL = re.compile(r"^(?:(?P<thread>\d+) +)?(?P<name>\w+)\((?P<rest>.*)", re.MULTILINE)
_PATH = re.compile(r'(?<!AT_FDCWD)<(/[^>]*)>|"(/[^"]*)"')
_NUMBER = re.compile(r"^[0-9a-f]{2,}$|\d+-\d{8}T\d+Z|(?=[0-9a-f]*\d)[0-9a-f]{2,}")


@dataclass(frozen=True)
class Point:
    """The `nth` of these calls (a key of CALLS) of a thread; only on `path`, where one is given.

    `every_thread`: of any thread; else of the first alone.
    """

    call: str
    nth: int = 1
    path: Path | None = None
    every_thread: bool = False

    def __str__(self) -> str:
        return f"{self.call} {self.nth}" + (f" of {self.path.name}" if self.path else "")

    def words(self) -> list[str]:
        """What it is to strace."""
        calls = ",".join(CALLS[self.call])
        only = ["-P", str(self.path)] if self.path else []
        threads = ["-f"] if self.every_thread else []
        return [*threads, "-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={self.nth}", *only]


class Snare(Tracer):
    """Laid for one process; `strike` waits until it is in it."""

    def __init__(self, pid: int, point: Point, log: Path) -> None:
        super().__init__(pid, point.words(), log)

    def strike(self, root: Path, timeout_s: float = GIVE_UP_S, is_over: Callable[[], bool] = lambda: False) -> str | None:
        """The call at which it was killed, its paths below `root`; None when it never came there, in time or until `is_over`.
        Lets go of it."""
        self._wait(lambda: bool(_ENDED.search(self.text())) or is_over(), timeout_s)
        self.close()
        text = self.text()
        return described(text, root) if _ENDED.search(text) else None


def described(log: str, root: Path) -> str:
    """The call that killed, without the numbers that differ each time: `rename .unfinished/# → blocks/#/#`."""
    ended = _ENDED.search(log)
    assert ended is not None
    thread, resumed = ended.groups()
    begun = [call for call in _CALL.finditer(log, 0, ended.end()) if call["thread"] == thread]
    call = next(call for call in reversed(begun) if resumed in (None, call["name"]))
    return f"{call['name']} {' → '.join(_names(call['rest'], root))}".strip()


def _names(arguments: str, root: Path) -> Sequence[str]:
    paths = [a or b for a, b in _PATH.findall(arguments)]
    within = ["." if path == str(root) else path.removeprefix(f"{root}/") for path in paths]
    return ["/".join(_NUMBER.sub("#", part) for part in path.split("/")) for path in within]

"""Locks as the kernel sees them: take an flock on a side file, and ask who holds a lock on any file.

Nothing here ever opens the file it asks about by `holders_of`: in a process that has a DuckDB file open, closing any
other descriptor of it would drop DuckDB's lock (the lock trap).
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pondkeeper.files.durable import PRIVATE_FILE

LockKind = Literal["posix", "flock", "ofd", "lease"]

_KINDS: dict[str, LockKind] = {"POSIX": "posix", "FLOCK": "flock", "OFDLCK": "ofd", "LEASE": "lease"}
_INTERPRETER = re.compile(r"(python|pypy|bash|sh|node|ruby|perl|Rscript)[\d.]*\Z")
_ATTEMPTS = 3
_BETWEEN_ATTEMPTS_S = 0.0005


@dataclass(frozen=True)
class LockHolder:
    """One lock on a file: the process that took it (-1 where the kernel does not say), its program and the kind."""

    pid: int
    program: str
    kind: LockKind
    writes: bool = True


class FlockFile:
    """An exclusive flock on a side file (made if missing). Who inherits the descriptor shares the lock.

    The kernel frees it when the last descriptor is closed, so a dead holder never leaves a stale lock. The file is
    never removed: whoever removed it could lock a file that others no longer see.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; True also when this object has it already. Never waits for a holder."""
        if self._descriptor is not None:
            return True
        for attempt in range(_ATTEMPTS):  # Why: `is_flocked` of another process holds it for some microseconds.
            if attempt:
                time.sleep(_BETWEEN_ATTEMPTS_S)
            self._descriptor = _open_locked(self.path, fcntl.LOCK_EX)
            if self._descriptor is not None:
                return True
        return False

    def release(self, *, from_all: bool = False) -> None:
        """Close our descriptor; the lock lives on while a process that inherited it does, but for `from_all`."""
        if self._descriptor is not None:
            if from_all:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def fileno(self) -> int:
        """The descriptor, close-on-exec: hand it to a child with `pass_fds`."""
        if self._descriptor is None:
            raise ValueError("the lock is not held")
        return self._descriptor

    def make_inheritable(self) -> int:
        """The descriptor, open in every program that this process starts from now on."""
        os.set_inheritable(self.fileno(), True)
        return self.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_flocked(path: Path) -> bool:
    """Whether someone holds an exclusive flock on `path`; False when there is no such file.

    Asked by trying a shared lock and not from /proc/locks: that hides a lock whose taker is in another pid namespace,
    or is dead while a child that inherited it lives on.
    """
    try:
        descriptor = _open_locked(path, fcntl.LOCK_SH)
    except FileNotFoundError:  # Why no look before: between it and the open a ticket is dropped every now and then.
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def holders_of(path: Path) -> list[LockHolder]:
    """Who holds a lock of any kind on `path`, from /proc/locks; opens nothing. Empty when nobody or no such file.

    The kernel lists only locks whose taker is in our pid namespace: an empty list is no proof that a file is free.
    """
    try:
        status = path.stat()
        table = Path("/proc/locks").read_text()
    except OSError:
        return []
    places = {f"{device}:{status.st_ino}" for device in _devices_of(path, status.st_dev)}
    found = [holder for line in table.splitlines() if (holder := _holder(line.split(), places))]
    return list(dict.fromkeys(found))


def program_of(pid: int) -> str:
    """The program of a process, with its script when it is an interpreter; never its other arguments (secrets)."""
    try:
        words = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if word]
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "unknown"
    if not words or not _INTERPRETER.match(Path(words[0]).name):
        return name or "unknown"
    return " ".join([Path(words[0]).name, *_script(words[1:])])


def _script(arguments: list[str]) -> list[str]:
    if len(arguments) >= 2 and arguments[0] == "-m":
        return ["-m", arguments[1]]
    return [Path(arguments[0]).name] if arguments and not arguments[0].startswith("-") else []


def _open_locked(path: Path, mode: int) -> int | None:
    """A descriptor of the file now at `path` with the flock on it; None when somebody holds it."""
    while True:
        flags = (os.O_RDWR | os.O_CREAT if mode == fcntl.LOCK_EX else os.O_RDONLY) | os.O_CLOEXEC
        descriptor = os.open(path, flags, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:  # Why: whatever went wrong, the descriptor must not stay open with the lock on it.
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the path still names the file we locked: somebody may have replaced it in between."""
    try:
        now, locked = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (locked.st_dev, locked.st_ino)


def _holder(words: list[str], places: set[str]) -> LockHolder | None:
    """The holder that a line of /proc/locks describes; None for other files and for those who only wait (`->`)."""
    if len(words) < 6 or words[1] == "->" or words[5] not in places or words[1] not in _KINDS:
        return None
    pid = int(words[4])
    return LockHolder(pid, program_of(pid) if pid > 0 else "unknown", _KINDS[words[1]], words[3] == "WRITE")


def _devices_of(path: Path, device: int) -> set[str]:
    """The device as /proc/locks may write it.

    Trap: on btrfs and overlayfs stat's device is not the superblock's, which the kernel prints; mountinfo has that one.
    """
    found = {f"{os.major(device):02x}:{os.minor(device):02x}"}
    where, best, numbers = os.path.realpath(path), "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, numbers = point, fields[2]
    return found | ({"{:02x}:{:02x}".format(*map(int, numbers.split(":")))} if numbers else set())

"""Whether this process still holds DuckDB's lock on a file, asked from the kernel.

Trap: on 1.5 a statement that opens the database's own file (`FROM '<its path>'`) and closes it again takes DuckDB's lock
away, and nothing tells. Another program can then open the file, and one side's rows vanish. So the writer asks before
each commit; what is not committed cannot be lost. An INSERT of placeholders opens no file, so after nothing but those
there is nothing to ask: the table of all locks of the machine takes 20 to 150 µs to read.
"""

from __future__ import annotations

import os
from pathlib import Path

from pondkeeper.errors import DatabaseUnavailable

_LOCKS = Path("/proc/locks")
LOOKS = 20


class HeldLock:
    """DuckDB's lock on a file that this process has just opened read-write."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Why: where the kernel does not show the lock while we surely have it, its absence later tells nothing.
        self._is_visible = holds_lock(path)
        self._is_doubtful = True

    def doubt(self) -> None:
        """A statement runs that may open files. Whether it is committed or not, the next commit asks the kernel."""
        self._is_doubtful = True

    def insist(self) -> None:
        """Raise a fatal DatabaseUnavailable when the lock is gone: this process must end without a commit."""
        if not self._is_doubtful:
            return
        if self._is_visible and not holds_lock(self._path):
            lost = DatabaseUnavailable(
                "The statement took DuckDB's lock off the database file, so nothing of it was committed.",
                remedy="A statement must not read the database's own file; load files under `pondkeeper run`.",
            )
            lost.fatal = True
            raise lost
        self._is_doubtful = False


def holds_lock(path: str) -> bool:
    """Whether the kernel lists a write lock of this process on the file. Only `stat`: opening it would drop the lock.

    Trap: the kernel gives the table of all locks in pieces of a page, and where others lock and unlock meanwhile a line may be in
    none of them: 16 of 1,087 reads missed a lock that was there. So one that is missing is looked for again.
    """
    wanted = (str(os.getpid()), str(Path(path).stat().st_ino))
    return any(_lists(wanted) for _ in range(LOOKS))


def _lists(wanted: tuple[str, str]) -> bool:
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:  # Why: a container may hide the table.
        return False
    return any(
        fields[1] == "POSIX" and fields[3] == "WRITE" and (fields[4], fields[5].rpartition(":")[2]) == wanted
        for fields in map(str.split, lines)
        if len(fields) > 5  # a waiter's line begins with `->`
    )

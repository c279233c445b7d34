"""What of a file changes when somebody writes it, asked by stat alone: harmless beside DuckDB's lock."""

from __future__ import annotations

import os
from pathlib import Path

FileState = list[int]


def file_state(file: Path) -> FileState:
    """What changes when somebody writes the database: inode, mtime (ns) and size (bytes) of the file and its WAL."""
    state = []
    for path in (file, file.with_name(file.name + ".wal")):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            state += [0, 0, 0]
        else:
            state += [status.st_ino, status.st_mtime_ns, status.st_size]
    return state

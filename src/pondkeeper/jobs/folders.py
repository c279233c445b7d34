"""The runs as their folders show them: everything about a run can be read without a keeper and without its database."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from pondkeeper.errors import RunNotFound
from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import Home, RunPaths
from pondkeeper.jobs.status import RunStatus, status_in

_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")
END_OF_LOG_BYTES = 8 * 1024


def new_run_id(now: float | None = None) -> str:
    """An id that sorts by time, to a fraction of a millisecond, and ends by chance: `20261121T031500Z-4f2a9c`."""
    at = time.time() if now is None else now
    fraction = int(at % 1.0 * 4096)
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}-{fraction:03x}{secrets.randbelow(4096):03x}"


def is_run_id(text: str) -> bool:
    """Whether the text can be the id of a run: it becomes a part of a path."""
    return bool(_RUN_ID.match(text))


def paths_of(home: Path, run_id: str) -> RunPaths:
    """The paths of a run. Raises RunNotFound for what cannot be the id of one."""
    if not is_run_id(run_id):
        raise RunNotFound
    return Home(home).run(run_id)


def runs_of(home: Path) -> list[str]:
    """The ids of the runs that have a folder, newest first."""
    return sorted(_names(Home(home).runs), reverse=True)


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if is_run_id(entry.name))
    except FileNotFoundError:
        return


def read_status(home: Path, run_id: str) -> RunStatus | None:
    """The status of a run; None when there is no such run."""
    return status_in(paths_of(home, run_id).status_json)


def is_alive(home: Path, run_id: str) -> bool:
    """Whether the run's supervisor lives: the kernel says so, by the lock that it holds."""
    return is_flocked(paths_of(home, run_id).lock)


def log_file(home: Path, run_id: str) -> Path:
    """Where the log of a run is, whether there is one or not."""
    return paths_of(home, run_id).log


def end_of_log(home: Path, run_id: str, max_bytes: int = END_OF_LOG_BYTES) -> str:
    """The last whole lines of a run's log."""
    try:
        with log_file(home, run_id).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            text = file.read(max_bytes).decode(errors="replace")
    except OSError:
        return ""
    return text if size <= max_bytes else text.partition("\n")[2]

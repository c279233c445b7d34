"""What processes that were killed have left of files that they were making: removed when a keeper starts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.files.scratch import sweep_scratch

STALE_AFTER_S: Final = 3600.0
_TEMPS: Final = ".*.tmp"


def sweep(home: Home, databases: Iterable[DatabasePaths]) -> None:
    """Remove half-made copies beside databases and in the home, and temporary files of dead writers. Never raises OSError."""
    databases = list(databases)
    for folder in {home.root, *(place for paths in databases for place in (paths.folder, paths.file.parent))}:
        sweep_scratch(folder)
    for temp in home.root.glob(_TEMPS):
        _remove_if_old(temp)
    for folder in {place for paths in databases for place in (paths.folder, paths.turn)}:
        for temp in _below(folder):
            _remove_if_old(temp)


def _below(folder: Path) -> list[Path]:
    try:
        return list(folder.rglob(_TEMPS))
    except OSError:  # Why: a folder was removed while it was read; what is left is for the next start.
        return []


def _remove_if_old(temp: Path) -> None:
    # Why only then: programs write here beside the keeper, and a temporary file of theirs is gone in milliseconds.
    try:
        if temp.lstat().st_mtime < time.time() - STALE_AFTER_S:
            temp.unlink()
    except OSError:  # Why: its owner was faster, or it is another user's.
        return

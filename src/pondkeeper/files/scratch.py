"""A hidden folder in which something is made that is to be there whole or not at all; one that a killed process has left is
removed by whoever makes the next beside it. An flock in it says whether its maker lives."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pondkeeper.files.durable import PRIVATE_FOLDER
from pondkeeper.files.locks import FlockFile

_PREFIX: Final = ".pondkeeper-making-"
_LOCK: Final = ".lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new private folder in `parent`, removed at the end. Raises OSError where none can be made."""
    sweep_scratch(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def sweep_scratch(parent: Path) -> None:
    """Remove the folders that dead processes have left in `parent`; what cannot be removed stays."""
    for folder in parent.glob(f"{_PREFIX}*"):
        lock = FlockFile(folder / _LOCK)
        try:
            if lock.try_acquire():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # Why: another user's, or removed by another sweeper in this moment.
            continue
        finally:
            lock.release()


def _make(parent: Path) -> tuple[Path, FlockFile]:
    while True:
        folder = parent / f"{_PREFIX}{secrets.token_hex(6)}"
        folder.mkdir(mode=PRIVATE_FOLDER)
        lock = FlockFile(folder / _LOCK)
        try:
            # Why the second question: a sweeper may have come between the two, and taken the folder for a dead one's.
            if lock.try_acquire() and lock.path.exists():
                return folder, lock
        except FileNotFoundError:
            pass
        lock.release()

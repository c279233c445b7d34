"""Folds the WAL of a database that nobody serves into its file, as the keeper's writer does when it opens one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pondkeeper.engine.faults import translated
from pondkeeper.engine.opening import WriterConfig, open_database

ENTRY: Final = "pondkeeper.engine.folding"


def answer(question: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """For `workers/alone.py`, in the caller's turn: `question` is a WriterConfig. Raises PondkeeperError."""
    tell("folding the WAL into the file")
    with translated():
        connection = open_database(WriterConfig(**question))
        try:
            connection.execute("CHECKPOINT")
        finally:
            connection.close()
    return {}

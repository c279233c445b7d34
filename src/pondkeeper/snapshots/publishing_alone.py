"""Makes a snapshot of a database that nobody serves: the copier, for one publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.leases import ignore_lease_signals
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.process import Desk

ENTRY: Final = "pondkeeper.snapshots.publishing_alone"


def answer(question: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """For `workers/alone.py`, in the caller's turn, with the WAL folded in: a message of `process.py`, and its answer."""
    tell("making a snapshot")
    ignore_lease_signals()
    said = Desk(Cancelling()).answer(question)
    if said.pop("op") == "error":
        raise PondkeeperError.from_wire(said)
    return said

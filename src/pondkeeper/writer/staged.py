"""A load in the writer process: staged rows for one table, and what must be remembered with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pondkeeper.engine.idempotency import Record
from pondkeeper.engine.intake.loading import Load
from pondkeeper.engine.writing import Transaction
from pondkeeper.errors import PondkeeperError


@dataclass(frozen=True)
class StagedLoad:
    """Rows that were staged, of one ingest or (`parts`) of several accepted ones; or the refusal that staging ended with.

    Why a refusal comes here: a repeated ingest gets its first outcome, even when it could not be staged again.
    """

    load: Load | None
    rejected: int = 0
    parts: tuple[Record, ...] = ()
    refusal: dict[str, Any] | None = None

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> StagedLoad:
        """The load that the keeper described."""
        if (refusal := wire.get("refusal")) is not None:
            return cls(None, refusal=refusal)
        parts = tuple(Record(part["key"], part["digest"], [part["rows"], 0]) for part in wire["parts"])
        return cls(Load.from_wire(wire["load"]), wire["rejected"], parts)

    def run(self, transaction: Transaction) -> list[int]:
        """Load the rows: how many, and how many were left out. Raises what keeps them from being loaded."""
        if self.load is None:
            raise PondkeeperError.from_wire(self.refusal or {})
        return [transaction.load(self.load), self.rejected]

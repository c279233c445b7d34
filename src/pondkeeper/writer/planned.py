"""The load of a job in the writer process: several steps on staged files, and the state that is committed with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pondkeeper.engine.idempotency import Record
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.engine.writing import Transaction


@dataclass
class PlannedLoad:
    """A plan on its way; `notes` say how tables were changed for it, once it has run."""

    plan: LoadPlan
    notes: list[str] = field(default_factory=list)
    parts: tuple[Record, ...] = ()

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> PlannedLoad:
        """The load that the keeper described."""
        return cls(LoadPlan.from_wire(wire["plan"]))

    def run(self, transaction: Transaction) -> list[int]:
        """Carry it out: what each step has counted. Raises what keeps it from being carried out."""
        carried = transaction.carry_out(self.plan)
        self.notes = carried.changes
        return carried.counts

"""What an examination finds: one sentence about one subject, and what to do about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One finding. A warning will hurt some day, a problem hurts now; both say what to do."""

    subject: str
    level: Level
    what: str
    remedy: str = ""

    def to_wire(self) -> dict[str, Any]:
        """The finding as plain data."""
        return dataclasses.asdict(self)


def ok(subject: str, what: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", what)


def warning(subject: str, what: str, remedy: str) -> Finding:
    """It works, and will hurt some day."""
    return Finding(subject, "warning", what, remedy)


def problem(subject: str, what: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(subject, "problem", what, remedy)

"""One operation of a recorded history: what a client asked, when, and what it was told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

APPEND, INSERT, UPDATE, DELETE, READ, TAIL = "append", "insert", "update", "delete", "read", "tail"
COMMITTED, REFUSED, UNKNOWN, BROKEN = "committed", "refused", "unknown", "broken"


@dataclass(frozen=True)
class Operation:
    """`begin` and `end` are seconds of the machine's clock, around the whole call.

    Writes: `outcome`, `version`, and for keyed rows `key`, `value` and `changed` (rows). `broken`: the insert met a row of
    that key. Reads: `version` of the answer and `at_least` that was asked for; `value` is what was found: of a `read` the
    value of the key or None, of a `tail` how many rows of its own log the client saw.
    """

    client: int
    n: int
    kind: str
    begin: float
    end: float
    outcome: str = COMMITTED
    version: int | None = None
    at_least: int | None = None
    key: int | None = None
    value: int | None = None
    changed: int | None = None

    @property
    def is_read(self) -> bool:
        return self.kind in (READ, TAIL)

    def to_json(self) -> str:
        """One line of a history file."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class Final:
    """What was in the file at the end: the log in the order of its rows, and the keyed rows."""

    log: list[tuple[int, int]]
    rows: dict[int, int]


@dataclass
class History:
    """Everything that is known of a run. `faults`: the moments at which somebody was killed."""

    operations: list[Operation]
    final: Final
    faults: list[float] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Keep it as evidence: a line of JSON per operation, in the order of their beginnings."""
        lines = [operation.to_json() for operation in sorted(self.operations, key=lambda each: each.begin)]
        last = {"faults": self.faults, "final": {"log": self.final.log, "rows": list(self.final.rows.items())}}
        path.write_text("\n".join([*lines, json.dumps(last)]) + "\n")

    @classmethod
    def read(cls, path: Path) -> History:
        """The history in a file that `write` wrote."""
        *lines, last = path.read_text().splitlines()
        end: dict[str, Any] = json.loads(last)
        final = Final([(client, n) for client, n in end["final"]["log"]], dict(end["final"]["rows"]))
        return cls(read_operations(lines), final, end["faults"])


def read_operations(lines: Iterable[str]) -> list[Operation]:
    """Operations from their lines."""
    return [Operation(**json.loads(line)) for line in lines]

"""What can be seen of a database file from outside, without opening it: its state, its holders, who waits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pondkeeper.files.locks import holders_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import FileState, file_state
from pondkeeper.writer.lease import current_holder
from pondkeeper.writer.tickets import Place, places


@dataclass(frozen=True)
class Sight:
    """One look at a database: who has it, and what the file looks like."""

    state: FileState
    size_bytes: int = 0
    wal_bytes: int = 0
    lease_holder: dict[str, Any] | None = None
    programs: list[Place] = field(default_factory=list)
    foreign: list[dict[str, Any]] = field(default_factory=list)

    def lease(self) -> dict[str, Any]:
        """The lease as a status shows it: who has it, and how many programs wait for it, and which."""
        shown = [{name: value for name, value in asdict(place).items() if name != "asked_ns"} for place in self.programs]
        return {"holder": self.lease_holder, "waiting": len(shown), "programs": shown}

    @property
    def is_free(self) -> bool:
        """Whether nobody else has the file or the right to write it."""
        return self.lease_holder is None and not self.foreign


def look(paths: DatabasePaths, own_pids: frozenset[int]) -> Sight:
    """Look at the database without opening it; `own_pids` are processes of ours that may have it."""
    state = file_state(paths.file)
    foreign = [
        {"pid": holder.pid, "program": holder.program, "writes": holder.writes}
        for holder in holders_of(paths.file)
        if holder.pid not in own_pids and holder.kind == "posix"
    ]
    lease = current_holder(paths)
    if lease is not None and lease.pid in own_pids:
        lease = None
    return Sight(
        state=state,
        size_bytes=state[2],
        wal_bytes=state[5],
        lease_holder=asdict(lease) if lease else None,
        programs=[place for place in places(paths.tickets) if place.pid not in own_pids],
        foreign=foreign,
    )

"""What can be seen of a database file from outside, without opening it: its state, its holders, who waits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pondkeeper.files.locks import holders_of
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import FileState, file_state
from pondkeeper.writer.lease import current_holder, waiting_count


@dataclass(frozen=True)
class Sight:
    """One look at a database: who has it, and what the file looks like."""

    state: FileState
    size_bytes: int = 0
    wal_bytes: int = 0
    lease_holder: dict[str, Any] | None = None
    lease_waiting: int = 0
    foreign: list[dict[str, Any]] = field(default_factory=list)

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
        lease_waiting=waiting_count(paths),
        foreign=foreign,
    )

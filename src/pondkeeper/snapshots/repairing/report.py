"""What a repair has done, and its last step: the file that was put together takes its place. Imports no engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pondkeeper.files import swapping
from pondkeeper.files.paths import DatabasePaths

WHY = "repair"
KEPT = 2


@dataclass(frozen=True)
class Repaired:
    """What was done to a file. `donor` is None where only the torn end of the WAL was cut off."""

    at: str
    blocks: int
    block_ids: list[int]
    headers: int
    wal_bytes_cut: int
    donor: str | None
    kept_as: str | None = None

    def describe(self) -> dict[str, Any]:
        return asdict(self)


def swap_in(paths: DatabasePaths, preparing: swapping.Preparing, report: dict[str, Any]) -> dict[str, Any]:
    """Put the file that was prepared in its place, and keep the torn ones; the report, which names where.

    The caller holds the lease, and nobody has the file open. It blocks.
    """
    report = report | {"kept_as": f"swaps/{preparing.swap.id}/old"}
    preparing.carry_out(report)
    swapping.forget(paths, WHY, keep=KEPT)
    return report

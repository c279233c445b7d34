"""The load of a job in a turn of its own, where no keeper serves the database."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pondkeeper.databases import fencing
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.local.snapshotting import next_version
from pondkeeper.local.turn import take_turn
from pondkeeper.settings import Settings
from pondkeeper.workers import alone
from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.writer.lease import Lease, OnWait

ENTRY = "pondkeeper.writer.loading_alone"


@dataclass(frozen=True)
class Patience:
    """How long a turn is waited for, and who is told of it; `is_cancelled`: nobody waits for it any more."""

    wait_s: float
    on_wait: OnWait
    on_turn: Callable[[], None]
    is_cancelled: Callable[[], bool]


def load_alone(
    paths: DatabasePaths, settings: Settings, plan: LoadPlan, staging: Path, patience: Patience
) -> dict[str, Any]:
    """Carry out the load: `rows_changed`, `notes`, `version` (the one that will have it), `held_s`, `waited_s`.

    Raises DatabaseBusy when the turn did not come, and PondkeeperError.
    """
    for folder in (paths.turn, fencing.writers_temp(paths), *fencing.folders(paths), staging):
        make_folder(folder)
    lease = Lease(paths, who=f"job {plan.job}", why=plan.title)
    asked_at = time.monotonic()
    take_turn(lease, paths, patience.wait_s, on_wait=patience.on_wait, is_cancelled=patience.is_cancelled)
    began_at = time.monotonic()
    try:
        patience.on_turn()
        version = next_version(paths)
        answer = _ask(paths, settings, plan, staging)
    finally:
        lease.release()
    return answer | {"version": version, "held_s": time.monotonic() - began_at, "waited_s": began_at - asked_at}


def _ask(paths: DatabasePaths, settings: Settings, plan: LoadPlan, staging: Path) -> dict[str, Any]:
    """The answer of a writer for this one load, behind the fence of a keeper's writer that may read the staging too."""
    writer = settings.writer
    fence = fencing.of_writer(paths)
    with tempfile.TemporaryDirectory(prefix="pondkeeper-") as temp:
        config = {
            "path": str(paths.file),
            "memory_limit_bytes": writer.memory_limit_bytes,
            "threads": writer.threads,
            "temp_directory": temp,
            "temp_limit_bytes": writer.temp_limit_bytes,
            "may_make": not any(paths.snapshots.glob("[0-9]*")),  # Why: a file that has snapshots is lost, not missing.
            "preimage": str(paths.preimage),
            "snapshots": str(paths.snapshots),
        }
        within = replace(fence, read=(*fence.read, str(staging.resolve()))).with_own(Path(temp))
        question = {"config": config, "load": {"plan": plan.to_wire()}}
        return alone.ask(ENTRY, question, within, limits=Ceiling(writer.memory_limit_bytes).rlimits)

"""A load, and the snapshot of what was loaded, in turns of this process where no keeper serves the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.kinds.patience import Waiting
from pondkeeper.kinds.through_keeper import LONGEST_WAIT_S
from pondkeeper.local.copying import settings_of
from pondkeeper.local.loading import Patience, load_alone
from pondkeeper.local.snapshotting import has_everything, snapshot_of_now

__all__ = ["has_everything", "load", "publish"]


def load(paths: DatabasePaths, plan: LoadPlan, staging: Path, waiting: Waiting) -> dict[str, Any]:
    """What a keeper would have answered."""
    patience = Patience(LONGEST_WAIT_S, waiting.on_wait, waiting.holding, waiting.is_given_up)
    answer = load_alone(paths, settings_of(Home(paths.home)), plan, staging, patience)
    return answer | {"counts": answer["rows_changed"], "changes": answer["notes"]}


def publish(paths: DatabasePaths, waiting: Waiting) -> int:
    """Make a snapshot that has everything that is in the file; its version."""
    snapshot = snapshot_of_now(
        paths,
        settings_of(Home(paths.home)),
        LONGEST_WAIT_S,
        why="snapshot of what a job has written",
        on_wait=waiting.on_wait,
        is_cancelled=waiting.is_given_up,
    )
    return snapshot.version

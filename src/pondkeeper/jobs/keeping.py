"""How long the folders of runs are kept: so many, and so long. It blocks as long as the disk does."""

from __future__ import annotations

import shutil
import time

from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import Home, RunPaths
from pondkeeper.jobs.folders import runs_of
from pondkeeper.jobs.status import status_in
from pondkeeper.settings.tree import RunSettings

HALF_MADE_AFTER_S = 60.0


def mark_recorded(paths: RunPaths) -> None:
    """Note that the history has the run, so that nobody records it again."""
    try:
        paths.recorded.touch(mode=0o600)
    except OSError:  # Why: the folder was removed meanwhile; then nobody will look into it either.
        return


def prune(home: Home, settings: RunSettings, now: float | None = None) -> list[str]:
    """Remove folders of runs that have ended and are recorded: those beyond `runs.keep`, and older than `runs.keep_s`.

    And what a crash left of a run that nobody was told of: a folder without a status.
    """
    moment = time.time() if now is None else now
    removed = []
    for place, run_id in enumerate(runs_of(home.root)):
        paths = home.run(run_id)
        if _may_go(paths, moment, settings, is_beyond=place >= settings.keep):
            shutil.rmtree(paths.folder, ignore_errors=True)
            removed.append(run_id)
    return removed


def _may_go(paths: RunPaths, now: float, settings: RunSettings, *, is_beyond: bool) -> bool:
    try:
        changed_at = paths.folder.stat().st_mtime
    except OSError:
        return False
    if not paths.status_json.exists():
        return now - changed_at > HALF_MADE_AFTER_S and not is_flocked(paths.lock)
    if not paths.recorded.exists() or not (is_beyond or now - changed_at > settings.keep_s):
        return False
    status = status_in(paths.status_json)
    return status is not None and status.is_final and not is_flocked(paths.lock)

"""What became of a run, as an error to be raised: by those who wait for it."""

from __future__ import annotations

from typing import Any

from pondkeeper.errors import PondkeeperError, RunCancelled, RunFailed
from pondkeeper.jobs.status import Phase


def failure_of(status: dict[str, Any]) -> PondkeeperError | None:
    """What a run has failed by, or that it was cancelled; None of one that is done, or goes on."""
    if status.get("phase") not in (Phase.FAILED, Phase.CANCELLED):
        return None
    if error := status.get("error"):
        return PondkeeperError.from_wire(error)
    return RunCancelled() if status["phase"] == Phase.CANCELLED else RunFailed()

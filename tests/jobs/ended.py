"""Runs that have ended, as the keeper would record them."""

from __future__ import annotations

from itertools import count
from typing import Any

from pondkeeper.jobs.status import Phase, RunStatus

_numbers = count(1)


def ended(job: str, phase: Phase = Phase.DONE, *, at: float = 1000.0, took_s: float = 2.0, **more: Any) -> RunStatus:
    """A run of a job that ended at that moment."""
    run_id = f"20261121T000000Z-{next(_numbers):06x}"
    error = {"code": "run_failed", "message": "It broke.", "remedy": "Mend it."} if phase is Phase.FAILED else None
    given: dict[str, Any] = {"trigger": "manual", "attempt": 1, "kind": "command", "database": None, "error": error} | more
    return RunStatus(
        run_id=run_id, job=job, phase=phase, created_at=at - took_s, started_at=at - took_s, finished_at=at, **given
    )

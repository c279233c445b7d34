"""Attempts that ended without having said how: interrupted with their keeper, or killed from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pondkeeper.errors import RunLost
from pondkeeper.jobs.status import Phase, RunStatus

MOST_LOSSES: Final = 50
LOSSES_COUNT_FOR_S: Final = 3600.0


def is_resumable(job: Mapping[str, Any], status: RunStatus) -> bool:
    """Whether another attempt may begin although nobody knows how far this one came.

    All kinds but `command` know by themselves what is left to do; a command says by `retries` that it may be repeated.
    """
    return bool(job["kind"] != "command" or status.failures < job["retries"])


def interrupted(status: RunStatus, job: Mapping[str, Any], now: float) -> None:
    """The attempt was ended with its keeper or its machine: it begins again with the next one, if it may."""
    lost_at = [at for at in status.details.get("lost_at", []) if at > now - LOSSES_COUNT_FOR_S] + [now]
    status.details["lost_at"] = lost_at
    status.updated_at = now
    status.lease = status.eta_s = status.rate_per_s = None
    if len(lost_at) > MOST_LOSSES or not is_resumable(job, status):
        status.phase, status.finished_at, status.error = Phase.FAILED, now, RunLost().to_wire()
        return
    if job["kind"] == "command":
        status.failures += 1
    status.phase, status.trigger, status.attempt = Phase.QUEUED, "resumed", status.attempt + 1
    status.not_before, status.error = None, None
    status.message = "begins again: the processes of the last attempt were ended from outside"

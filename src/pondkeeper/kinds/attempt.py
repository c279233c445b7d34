"""How an attempt of a run has ended, and whether there is another one: decided in one place, for whoever saw its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from pondkeeper.errors import JobInvalid, PondkeeperError, RunCancelled, RunFailed, RunTimedOut
from pondkeeper.jobs.losing import interrupted
from pondkeeper.jobs.status import Phase, RunStatus

LONGEST_RETRY_WAIT_S: Final = 600.0
KEPT_ATTEMPTS: Final = 20
# Why: another attempt meets them unchanged.
HOPELESS: Final = frozenset({"job_invalid", "extra_missing", "setting_invalid", "statement_not_allowed"})


class Stop(StrEnum):
    """Why an attempt was told to end."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    STAGED_TOO_MUCH = "staged_too_much"


def conclude(status: RunStatus, plan: Mapping[str, Any], code: int, stop: Stop | None, *, by: str | None = None) -> None:
    """Say in `status` how the attempt has ended: done, cancelled, failed, or queued again for another attempt.

    `code` is the exit code of its program, `plan` the plan as plain data, `by` who cancelled it.
    """
    job = plan["job"]
    now = time.time()
    status.exit_code = code if code >= 0 else 128 - code
    status.lease = status.eta_s = None
    finished = code == 0 and status.error is None
    # Why: a program that ends itself with 0 when it is asked to has not done its work; a kind says so by an error.
    if finished and (stop is None or job["kind"] != "command"):
        status.phase, status.message, status.finished_at = Phase.DONE, "", now
    elif stop is Stop.CANCELLED:
        error = RunCancelled(f"The run was cancelled by {by}." if by else None)
        status.phase, status.error, status.finished_at = Phase.CANCELLED, error.to_wire(), now
    elif stop is Stop.INTERRUPTED:
        interrupted(status, job, now)
    else:
        _fail(status, job, _error(status, job, code, stop), now)
    status.updated_at = now


def _error(status: RunStatus, job: Mapping[str, Any], code: int, stop: Stop | None) -> dict[str, Any]:
    if stop is Stop.TIMED_OUT:
        return RunTimedOut(f"The run did not end within {job['timeout_s']:g} s and was ended.").to_wire()
    if stop is Stop.STAGED_TOO_MUCH:
        return RunFailed(
            "The run has staged more than runs.staging_limit_bytes allows, and was ended.",
            remedy="Let it bring less at once, or raise `runs.staging_limit_bytes`.",
        ).to_wire()
    if status.error is not None:
        return status.error
    return died(code).to_wire()


def died(code: int) -> PondkeeperError:
    """The error of a program that ended with this code, or (below 0) by a signal."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " The kernel does so when memory runs out." if code == -signal.SIGKILL else ""
        return RunFailed(f"The program of the run was killed by {name}.{hint}", signal=-code)
    return RunFailed(f"The program of the run ended with exit code {code}.", exit_code=code)


def not_started(program: str, error: OSError) -> PondkeeperError:
    """The error of a program that is not there, or cannot be executed."""
    return JobInvalid(f"{program} cannot be started: {error.strerror}.", remedy="Correct `command` of the job.")


def _fail(status: RunStatus, job: Mapping[str, Any], error: dict[str, Any], now: float) -> None:
    """The attempt has failed: the next one after a while that doubles, or the end."""
    status.failures += 1
    status.error = error
    _remember(status, error, now)
    if status.failures > job["retries"] or error.get("code") in HOPELESS:
        status.phase, status.finished_at = Phase.FAILED, now
        return
    wait_s = min(LONGEST_RETRY_WAIT_S, job["retry_wait_s"] * 2.0 ** min(40, status.failures - 1))
    status.phase, status.trigger, status.attempt = Phase.QUEUED, "retry", status.attempt + 1
    status.not_before = now + wait_s
    status.message = f"attempt {status.attempt} after {wait_s:g} s, since the last one failed: {error['message']}"


def _remember(status: RunStatus, error: dict[str, Any], now: float) -> None:
    failed = {"attempt": status.attempt, "code": error.get("code"), "message": error.get("message"), "ended_at": now}
    status.details["failed_attempts"] = [*status.details.get("failed_attempts", []), failed][-KEPT_ATTEMPTS:]

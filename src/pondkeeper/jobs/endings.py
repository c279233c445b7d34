"""Runs that are ended from outside, and runs that were lost: by their files, with a keeper and without one. It blocks."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from pondkeeper.errors import RunCancelled, RunNotFound
from pondkeeper.files.durable import write_atomic
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import RunPaths
from pondkeeper.jobs.folders import paths_of
from pondkeeper.jobs.losing import interrupted
from pondkeeper.jobs.orphans import bury, end_orphans
from pondkeeper.jobs.status import Phase, RunStatus, iso, status_in, write_status
from pondkeeper.workers.descendants import started_at_ticks


def cancel_run(home: Path, run_id: str, by: str) -> RunStatus:
    """Have the run end for good: at once when nobody carries it out, else soon. One that has ended stays as it is.

    Raises RunNotFound.
    """
    paths = paths_of(home, run_id)
    status = status_in(paths.status_json)
    if status is None:
        raise RunNotFound
    if status.is_final:
        return status
    note = {"by": by, "at": iso(time.time())}
    write_atomic(paths.cancel_json, json.dumps(note).encode())
    lock = FlockFile(paths.lock)
    if not lock.try_acquire():
        signal_supervisor(status)
        return status
    with lock:
        status = status_in(paths.status_json) or status
        if not status.is_final:
            _cancelled(paths, status, by)
    return status


def _cancelled(paths: RunPaths, status: RunStatus, by: str) -> None:
    """Nobody carries it out, and nobody will."""
    if status.phase is not Phase.QUEUED:
        end_orphans(status.run_id)
    status.phase, status.finished_at = Phase.CANCELLED, time.time()
    status.updated_at, status.not_before = status.finished_at, None
    status.error = RunCancelled(f"The run was cancelled by {by}.").to_wire()
    write_status(paths.status_json, status, durable=True)


def signal_supervisor(status: RunStatus) -> None:
    """Wake the supervisor, so that it ends its run: for good with a `cancel.json`, else to be begun again."""
    if status.pid is None:
        return
    try:
        descriptor = os.pidfd_open(status.pid)
    except OSError:
        return
    try:
        if started_at_ticks(status.pid) == status.pid_started_at:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)  # Why: somebody may have stopped it, and it would not hear.
    except (ProcessLookupError, PermissionError):  # Why: it has ended, or is another user's; it looks for the file by itself.
        return
    finally:
        os.close(descriptor)


def settle_lost(paths: RunPaths) -> RunStatus | None:
    """The status of a run, set right when its supervisor died without a last word: queued again, or failed.

    None while somebody carries it out. What outlived the supervisor is killed first.
    """
    lock = FlockFile(paths.lock)
    if not lock.try_acquire():
        return None
    with lock:
        status = status_in(paths.status_json)
        if status is None or status.is_final or status.phase is Phase.QUEUED:
            return status
        end_orphans(status.run_id)
        bury(status.pid)
        if paths.cancel_json.exists():
            _cancelled(paths, status, "somebody, and its processes were killed before they ended by themselves")
            return status
        interrupted(status, _job_of(paths), time.time())
        write_status(paths.status_json, status, durable=True)
        return status


def _job_of(paths: RunPaths) -> dict[str, object]:
    """The job as the plan has it; of a broken plan, one that is not repeated."""
    try:
        found: dict[str, object] = json.loads(paths.plan_json.read_bytes())["job"]
        return {"kind": found["kind"], "retries": found["retries"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"kind": "command", "retries": 0}

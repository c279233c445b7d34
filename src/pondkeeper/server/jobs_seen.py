"""Which job and which run a request means, for a key that may see it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.access.authorize import Action, authorize, is_allowed
from pondkeeper.errors import JobNotFound, RunNotFound
from pondkeeper.server.scopes import caller_of, entry_of
from pondkeeper.settings.leaves import nearest

if TYPE_CHECKING:
    from starlette.types import Scope

    from pondkeeper.access.keys import Key
    from pondkeeper.jobs.definition import Job
    from pondkeeper.jobs.desk import JobsDesk
    from pondkeeper.server.context import Context

RUN_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")


def desk_of(context: Context) -> JobsDesk | None:
    """The desk of the jobs; None on a keeper that has none, such as one of replicas."""
    return context.jobs


def job_of(context: Context, scope: Scope, name: str, action: Action) -> tuple[JobsDesk, Job]:
    """The job of that name, for a caller who may do that to it. Raises Forbidden and JobNotFound.

    To a key that may not see it, a job that exists and one that does not are the same.
    """
    key, entry = caller_of(scope), entry_of(scope)
    authorize(key, Action.JOBS_LIST)
    entry.target = f"job {name[:100]}"
    desk = desk_of(context)
    found = None if desk is None else desk.find(name)
    if desk is None or found is None or not is_allowed(key, Action.JOB_SEE, found.database):
        raise _not_found(desk, key, name)
    entry.database = found.database
    authorize(key, action, found.database)
    return desk, found


def _not_found(desk: JobsDesk | None, key: Key, name: str) -> JobNotFound:
    """The error, with the nearest of the names that the key may see."""
    seen = [] if desk is None else [job.name for job in desk.jobs() if is_allowed(key, Action.JOB_SEE, job.database)]
    near = nearest(name[:100], seen)
    shown = name[:80] if name[:80].isprintable() else ascii(name[:80])
    return JobNotFound(f"There is no job {shown!r}" + (f"; did you mean {near!r}?" if near else "."))


async def run_of(context: Context, scope: Scope, run_id: str, action: Action) -> tuple[JobsDesk, dict[str, Any]]:
    """The run of that id as it stands, for a caller who may do that to it. Raises Forbidden and RunNotFound."""
    key, entry = caller_of(scope), entry_of(scope)
    authorize(key, Action.JOBS_LIST)
    entry.target = f"run {run_id[:100]}"
    desk = desk_of(context)
    if desk is None or not RUN_ID.match(run_id):
        raise RunNotFound
    status = await desk.run(run_id)
    if not is_allowed(key, Action.JOB_SEE, status["database"]):
        raise RunNotFound
    entry.database = status["database"]
    entry.target = f"job {status['job']}, run {run_id}"
    authorize(key, action, status["database"])
    return desk, status

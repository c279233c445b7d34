"""Jobs: GET /v1/jobs, GET and PATCH /v1/jobs/{job}, POST /v1/jobs/{job}/runs, POST /v1/jobs/{job}/accept-drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action, authorize, is_allowed
from pondkeeper.server.answers import Answer
from pondkeeper.server.bodies import Decoder, JobBody
from pondkeeper.server.context import Context
from pondkeeper.server.job_shapes import DriftAccepted, JobList, JobShown, RunShown
from pondkeeper.server.jobs_seen import desk_of, job_of
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.scopes import caller_of, client_of, entry_of, sees_private

if TYPE_CHECKING:
    from starlette.types import Scope

MAX_BODY_BYTES: Final = 64 * 1024
_decoder = Decoder(JobBody)


def make_router(context: Context) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(tags=["jobs"])
    _add_looking(router, context)
    _add_running(router, context)
    _add_enabling(router, context)
    return router


def _add_looking(router: APIRouter, context: Context) -> None:
    @router.get("/v1/jobs", summary="Every job", response_model=None, responses=gives(JobList, "What they are, and how they fare."))
    async def list_jobs(request: Request) -> Answer:
        """The jobs that the key may see: of databases that it is for; those without a database only if it is for every one."""
        key = caller_of(request.scope)
        authorize(key, Action.JOBS_LIST)
        desk = desk_of(context)
        if desk is None:
            return Answer({"jobs": [], "problem": None})
        seen = [job.name for job in desk.jobs() if is_allowed(key, Action.JOB_SEE, job.database)]
        shown = [await desk.describe(name) for name in seen]
        problem = desk.problem if sees_private(request.scope) else None
        return Answer({"jobs": shown, "problem": None if problem is None else problem.to_wire(with_private=True)})

    @router.get("/v1/jobs/{job}", summary="One job", response_model=None, responses=gives(JobShown, "What it is, and how it fares."))
    async def get_job(request: Request, job: str) -> Answer:
        """With `settings` and `notify`, which may name hosts and paths, for administrators of the whole keeper."""
        desk, found = job_of(context, request.scope, job, Action.JOB_SEE)
        return Answer(await desk.describe(found.name, with_settings=sees_private(request.scope)))


def _add_running(router: APIRouter, context: Context) -> None:
    @router.post(
        "/v1/jobs/{job}/runs",
        summary="Run a job now",
        response_model=None,
        responses=gives(RunShown, "It waits for its turn, or has begun. Asked again while it waits, the run is the same.", 202),
    )
    async def run_job(request: Request, job: str) -> Answer:
        """Answers at once. The run goes on whatever becomes of the request, and of this keeper."""
        desk, found = job_of(context, request.scope, job, Action.JOB_RUN)
        status = await desk.trigger(found.name, trigger="manual", by=who(request.scope))
        entry_of(request.scope).target = f"job {found.name}, run {status['run_id']}"
        return Answer(status, 202)

    @router.post(
        "/v1/jobs/{job}/accept-drift",
        summary="Let a change of the source through",
        response_model=None,
        responses=gives(DriftAccepted, "The next run takes these changes over."),
    )
    async def accept_drift(request: Request, job: str) -> Answer:
        """Of a job with `drift = "ask"`: exactly what its last run was refused for."""
        desk, found = job_of(context, request.scope, job, Action.JOB_RUN)
        return Answer({"accepted": await desk.accept_drift(found.name)})


def _add_enabling(router: APIRouter, context: Context) -> None:
    changed: dict[str, Any] = {
        "response_model": None,
        "openapi_extra": takes(JobBody, off={"enabled": False}),
        "responses": gives(JobShown, "How it stands now."),
    }

    @router.patch("/v1/jobs/{job}", summary="Switch a job on or off", **changed)
    async def enable_job(request: Request, job: str) -> Answer:
        """One that is off is neither due nor run after others, also after a restart; it can still be run by hand."""
        desk, found = job_of(context, request.scope, job, Action.JOB_ENABLE)
        body = await _decoder.read(request.scope, request.receive, MAX_BODY_BYTES)
        entry_of(request.scope).target = f"job {found.name}, {'on' if body.enabled else 'off'}"
        await desk.enable(found.name, body.enabled)
        return Answer(await desk.describe(found.name, with_settings=sees_private(request.scope)))


def who(scope: Scope) -> str:
    """Who asks, for the history of runs: the name of the key, or the process on the control socket."""
    key = caller_of(scope)
    return client_of(scope) if key.id == "local" else f"key {key.name}"

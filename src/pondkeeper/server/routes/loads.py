"""Loads of jobs: POST …/loads, over the control socket only: what is loaded are files of this machine, named by their paths."""

from __future__ import annotations

from fastapi import APIRouter, Request

from pondkeeper.access.authorize import Action
from pondkeeper.databases.loading import LoadOutcome, LoadRequest
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.errors import Forbidden, PondkeeperError
from pondkeeper.server.answers import Answer
from pondkeeper.server.bodies import Decoder
from pondkeeper.server.context import Context
from pondkeeper.server.finishing import Finishing
from pondkeeper.server.load_shapes import LoadAnswer, LoadBody
from pondkeeper.server.openapi import gives, takes
from pondkeeper.server.scopes import caller_of, client_of, entry_of, exchange_of

_decoder = Decoder(LoadBody)


def make_router(context: Context) -> APIRouter:
    """The route of loads."""
    router = APIRouter(tags=["jobs"])
    loads = Finishing[LoadOutcome]("load")

    @router.post(
        "/v1/databases/{name}/loads",
        summary="Load what a run of a job has staged",
        response_model=None,
        openapi_extra=takes(LoadBody, **_EXAMPLES),
        responses=gives(LoadAnswer, "It is committed and on disk.", example=_ANSWER_EXAMPLE),
    )
    async def load(request: Request, name: str) -> Answer:  # noqa: ARG001  # Why: FastAPI documents it
        """For runs of jobs on the keeper's own machine, over its control socket; elsewhere it is forbidden.

        The files lie in the `staging/` of a run in the keeper's home. A load with an identity that was committed before
        is not applied again, and gets the first outcome.
        """
        scope = request.scope
        database = context.database(scope, Action.INGEST)
        exchange = exchange_of(scope)
        if exchange is None or exchange.peer is None:
            raise Forbidden(
                "Files of this machine are loaded over the control socket only.",
                remedy="Send rows to POST …/tables/{table}/rows.",
            )
        body = await _decoder.read(scope, request.receive, context.settings.server.max_body_bytes)
        plan = LoadPlan.from_wire(body.load)
        entry = entry_of(scope)
        entry.sql = plan.title
        wanted = LoadRequest(
            plan, body.timeout_s, body.wait_s, body.priority, key_id=caller_of(scope).id, client=client_of(scope)
        )
        try:
            outcome = await loads.wait_for(database.loads.run(wanted), exchange)
        except PondkeeperError as error:
            context.meters.write(error.code)
            raise
        context.meters.write("committed")
        entry.outcome, entry.version, entry.rows = "committed", outcome.version, sum(outcome.counts)
        return Answer(LoadAnswer("committed", outcome.version, outcome.counts, outcome.changes, outcome.held_s, outcome.waited_s))

    return router


_EXAMPLES = {
    "a full refresh": {
        "load": {
            "job": "shop",
            "identity": "20261121T031500Z-4f2a9c/1",
            "steps": [{"step": "replace", "table": "raw.orders", "files": ["…/runs/20261121T031500Z-4f2a9c/staging/1.parquet"]}],
            "state": {"cursor": "2026-11-21T03:15:00Z"},
        }
    }
}
_ANSWER_EXAMPLE = {"outcome": "committed", "version": 43, "counts": [15000], "changes": [], "held_s": 0.04, "waited_s": 0.01}

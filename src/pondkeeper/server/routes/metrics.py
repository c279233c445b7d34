"""Metrics: GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from pondkeeper.access.authorize import Action, authorize
from pondkeeper.server.context import Context
from pondkeeper.server.metrics import CONTENT_TYPE
from pondkeeper.server.scopes import caller_of

_HEADERS = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def make_router(context: Context) -> APIRouter:
    """The route of metrics."""
    router = APIRouter(tags=["metrics"])

    @router.get(
        "/metrics",
        summary="Metrics in Prometheus' text format",
        response_model=None,
        responses={200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape(request: Request) -> Response:
        authorize(caller_of(request.scope), Action.METRICS)
        return Response(context.meters.scrape(), headers=_HEADERS)

    return router

"""Health: /health/live and /health/ready, for whoever starts and restarts keepers. They take no key and tell nothing."""

from __future__ import annotations

from fastapi import APIRouter

from pondkeeper.errors import DatabaseUnavailable, KeeperStopping
from pondkeeper.server.answers import Answer
from pondkeeper.server.context import Context
from pondkeeper.server.openapi import gives
from pondkeeper.server.shapes import Health


def make_router(context: Context) -> APIRouter:
    """The routes of health."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="Is it alive", response_model=None, responses=gives(Health, "It is."))
    async def live() -> Answer:
        """Whether the event loop turns. Restart the keeper when this does not answer."""
        return Answer({"status": "live"})

    @router.get("/health/ready", summary="Can it be asked", response_model=None, responses=gives(Health, "It can."))
    async def ready() -> Answer:
        """Whether requests may be sent here: nothing is opening still, and something can be queried."""
        if context.is_stopping:
            raise KeeperStopping
        states = [database.status()["state"] for database in context.registry.all()]
        if "starting" in states or (states and "ready" not in states):
            raise DatabaseUnavailable("No database can be queried yet.", retry_after_s=1)
        return Answer({"status": "ready"})

    return router

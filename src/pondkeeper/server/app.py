"""The app: FastAPI with our routes, behind the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pondkeeper import __version__
from pondkeeper.access.limit_book import LimitBook
from pondkeeper.access.throttle import Throttle
from pondkeeper.errors import InvalidRequest, PondkeeperError
from pondkeeper.server.context import Context
from pondkeeper.server.gate import Gate, note_refusal
from pondkeeper.server.job_metrics import JobCollector
from pondkeeper.server.metrics import DatabaseCollector, Meters
from pondkeeper.server.openapi import document
from pondkeeper.server.problems import envelope, of_framework, problem_headers
from pondkeeper.server.routes import (
    backups,
    databases,
    events,
    executes,
    health,
    ingests,
    jobs,
    keys,
    loads,
    metrics,
    queries,
    replication,
    restores,
    runs,
    snapshots,
    tickets,
)
from pondkeeper.server.scopes import entry_of, sees_private

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from pondkeeper.access.audit import Audit
    from pondkeeper.access.keyring import Keyring
    from pondkeeper.archive.desk import ArchiverDesk
    from pondkeeper.archive.replica.feed import Feed
    from pondkeeper.archive.replica.keeper import ReplicaKeeper
    from pondkeeper.databases.registry import Registry
    from pondkeeper.databases.running import RunningQueries
    from pondkeeper.jobs.desk import JobsDesk
    from pondkeeper.settings import Settings


class KeeperApp(FastAPI):
    """FastAPI inside the gate. `context` is what the routes work with."""

    def __init__(self, context: Context) -> None:
        super().__init__(title="Pondkeeper", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
        self.context = context
        query, execute = queries.QueryHandler(context), executes.ExecuteHandler(context)
        ingest = ingests.IngestHandler(context)
        self._gate = Gate(super().__call__, context, {"query": query, "execute": execute, "rows": ingest})
        self.include_router(queries.make_router(context, query))
        self.include_router(executes.make_router(execute))
        self.include_router(ingests.make_router(context, ingest))
        for noun in (databases, snapshots, loads, backups, restores, tickets, replication, jobs, runs, events, keys, health, metrics):
            self.include_router(noun.make_router(context))
        self.add_exception_handler(PondkeeperError, _refused)
        self.add_exception_handler(HTTPException, _framework_refused)
        self.add_exception_handler(RequestValidationError, _framework_refused)
        self.add_exception_handler(Exception, _failed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: through the gate, and what it does not answer itself through FastAPI."""
        await self._gate(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self)
        return self.openapi_schema


def create_app(
    registry: Registry,
    running: RunningQueries,
    keys_: Keyring,
    settings: Settings,
    audit: Audit | None = None,
    archiver: ArchiverDesk | None = None,
    feed: Feed | None = None,
    replicas: ReplicaKeeper | None = None,
    jobs_: JobsDesk | None = None,
) -> KeeperApp:
    """The app of one keeper. Serve it with `serving.HttpServer`: our protocol keeps the bounds that the app relies on."""
    meters = Meters()
    meters.registry.register(DatabaseCollector(registry, running))
    if jobs_ is not None:
        meters.registry.register(JobCollector(jobs_))
    limits, throttle = LimitBook(settings), Throttle(settings.limits.failed_logins_per_min)
    return KeeperApp(Context(registry, running, keys_, settings, meters, limits, throttle, audit, archiver, feed, replicas, jobs_))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PondkeeperError)
    note_refusal(error, request.scope)
    return _problem(error, with_private=sees_private(request.scope))


async def _framework_refused(request: Request, error: Exception) -> Response:
    refused = InvalidRequest("The path or its parameters are not of the expected shape.")
    found = of_framework(error) if isinstance(error, HTTPException) else refused
    entry_of(request.scope).outcome = found.code
    return _problem(found)


async def _failed(request: Request, __: Exception) -> Response:
    entry_of(request.scope).outcome = PondkeeperError.code
    return _problem(PondkeeperError())


def _problem(error: PondkeeperError, *, with_private: bool = False) -> Response:
    body = envelope(error, with_private=with_private)
    response = Response(body, status_code=error.http_status)
    response.raw_headers = problem_headers(error, body)
    return response

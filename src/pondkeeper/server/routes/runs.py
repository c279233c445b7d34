"""Runs of jobs: GET /v1/runs, GET and DELETE /v1/runs/{id}, GET /v1/runs/{id}/log; the looks also as streams that go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qs

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.types import Receive, Scope, Send

from pondkeeper.access.authorize import Action, authorize, is_allowed
from pondkeeper.errors import InvalidRequest, PondkeeperError
from pondkeeper.jobs.logs import offset_of_tail
from pondkeeper.jobs.status import FINAL
from pondkeeper.server.answers import Answer, Direct
from pondkeeper.server.context import Context
from pondkeeper.server.exchange import AnswerCut
from pondkeeper.server.job_shapes import RunList, RunShown
from pondkeeper.server.jobs_seen import desk_of, job_of, run_of
from pondkeeper.server.listeners import is_still_let_in
from pondkeeper.server.openapi import gives
from pondkeeper.server.problems import NO_SNIFF, NO_STORE
from pondkeeper.server.routes.jobs import who
from pondkeeper.server.run_streams import LOOK_EVERY_S, LogReading, StreamEnded, happenings, log_pieces
from pondkeeper.server.scopes import caller_of, exchange_of

if TYPE_CHECKING:
    from pondkeeper.access.keys import Key
    from pondkeeper.jobs.desk import JobsDesk

MOST_LISTED: Final = 10_000
MOST_LOOKED_AT: Final = 10_000
FOLLOWED_CLOSELY: Final = 32
FIRST_PAUSE_S: Final = 0.03  # Why so short: many runs are over in a moment, and somebody waits for each.
OFFSET: Final = b"pondkeeper-log-offset"
_TEXT: Final = [(b"content-type", b"text/plain; charset=utf-8"), NO_STORE, NO_SNIFF, (b"x-accel-buffering", b"no")]
_LINES: Final = [(b"content-type", b"application/x-ndjson"), NO_STORE, NO_SNIFF, (b"x-accel-buffering", b"no")]
_encoder = msgspec.json.Encoder(enc_hook=str)


def make_router(context: Context) -> APIRouter:
    """The routes of runs."""
    router = APIRouter(tags=["jobs"])
    _add_list(router, context)
    _add_one(router, context)
    _add_log(router, context)
    return router


def _add_list(router: APIRouter, context: Context) -> None:
    @router.get("/v1/runs", summary="Runs, the youngest first", response_model=None, responses=gives(RunList, "Those that are kept."))
    async def list_runs(
        request: Request,
        job: Annotated[str | None, Query(description="Only those of this job.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="At most so many.")] = 100,
        before: Annotated[str | None, Query(max_length=100, description="Only those before this run, to go on behind it.")] = None,
    ) -> Answer:
        """Those that wait and go on, and those that have ended as long as `runs.keep` and `runs.keep_s` say."""
        key = caller_of(request.scope)
        authorize(key, Action.JOBS_LIST)
        if job is not None:
            job_of(context, request.scope, job, Action.JOB_SEE)
        desk = desk_of(context)
        return Answer({"runs": [] if desk is None else await _seen(desk, key, job, limit, before)})


async def _seen(desk: JobsDesk, key: Key, job: str | None, limit: int, before: str | None) -> list[dict[str, Any]]:
    """So many runs that the key may see; those of others between them count for nothing."""
    found: list[dict[str, Any]] = []
    looked_at = 0
    while len(found) < limit and looked_at < MOST_LOOKED_AT:
        page = await desk.runs(job=job, limit=limit, before=before)
        found += [each for each in page if is_allowed(key, Action.JOB_SEE, each["database"])]
        looked_at += len(page)
        if len(page) < limit:
            break
        before = page[-1]["run_id"]
    return found[:limit]


def _add_one(router: APIRouter, context: Context) -> None:
    follower = _Follower(context)

    @router.get(
        "/v1/runs/{id}",
        summary="How a run gets on",
        response_model=None,
        openapi_extra={"parameters": _FOLLOW_STATUS},
        responses=gives(RunShown, 'As it stands; with `follow` as NDJSON, one `{"run": …}` at each change until it has ended.'),
    )
    async def get_run(request: Request, id: str) -> Answer | Direct:  # noqa: A002  # Why: the name in the path
        """Its phase, counts, rate and ETA, rows by table, who holds the lease that it waits for, and how it ended."""
        if _flag(request.scope, "follow"):
            return Direct(follower.status)
        _, status = await run_of(context, request.scope, id, Action.JOB_SEE)
        status.pop("log_end", None)
        return Answer(status)

    @router.delete(
        "/v1/runs/{id}", summary="Cancel a run", response_model=None, responses=gives(RunShown, "It is told to end.", 202)
    )
    async def cancel_run(request: Request, id: str) -> Answer:  # noqa: A002  # Why: as above
        """One that waits is dropped; one that goes on gets SIGTERM, and after `runs.kill_after_s` SIGKILL. It may have ended by then."""
        desk, status = await run_of(context, request.scope, id, Action.JOB_CANCEL)
        status.pop("log_end", None)
        if not _is_over(status):
            status = await desk.cancel(id, by=who(request.scope))
        return Answer(status, 202)


def _add_log(router: APIRouter, context: Context) -> None:
    follower = _Follower(context)

    @router.get(
        "/v1/runs/{id}/log",
        summary="The log of a run",
        response_model=None,
        openapi_extra={"parameters": _FOLLOW_LOG},
        responses={200: {"description": "What it wrote, secrets masked.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def get_log(id: str) -> Direct:  # noqa: A002, ARG001  # Why: FastAPI documents it
        """With `follow` until the run has ended. `Pondkeeper-Log-Offset` says at which byte of the log the answer begins.

        Of a run whose folder has gone (`runs.keep`), the end of it, which history has."""
        return Direct(follower.log)


class _Follower:
    """Handlers of the streams, plain ASGI. One that breaks off before the end of its run ends without its last chunk."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def status(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # Why: ASGI passes it
        """GET /v1/runs/{id}?follow: NDJSON."""
        run_id, offset = scope["path_params"]["id"], _number(scope, "log_offset")
        desk, _ = await run_of(self._context, scope, run_id, Action.JOB_SEE if offset is None else Action.JOB_LOG)
        log = None if offset is None else LogReading(desk.log_file(run_id), offset)
        found = happenings(log, lambda: desk.run(run_id), _is_over, self._may_go_on(scope))
        await self._send(scope, send, _LINES, (b"\n" if each is None else _encoder.encode(each) + b"\n" async for each in found))

    async def log(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # Why: as above
        """GET /v1/runs/{id}/log: text."""
        run_id = scope["path_params"]["id"]
        offset, lines = _number(scope, "offset"), _number(scope, "tail")
        follows = _flag(scope, "follow")
        desk, status = await run_of(self._context, scope, run_id, Action.JOB_LOG)
        if "log_end" in status:
            await self._send(scope, send, [*_TEXT, (OFFSET, b"0")], _whole(status["log_end"]))
            return
        file = desk.log_file(run_id)
        if offset is None:
            offset = 0 if lines is None else await asyncio.to_thread(offset_of_tail, file, lines)
        log = LogReading(file, offset)
        pieces = log.rest() if not follows else log_pieces(log, lambda: desk.run(run_id), _is_over, self._may_go_on(scope))
        await self._send(scope, send, [*_TEXT, (OFFSET, b"%d" % offset)], pieces)

    def _may_go_on(self, scope: Scope) -> Callable[[], Awaitable[bool]]:
        pause_s = FIRST_PAUSE_S

        async def may_go_on() -> bool:
            nonlocal pause_s
            await asyncio.sleep(pause_s * max(1.0, self._context.seats.count / FOLLOWED_CLOSELY))
            pause_s = min(LOOK_EVERY_S, pause_s * 1.25)
            return not self._context.is_stopping and await is_still_let_in(self._context, scope)

        return may_go_on

    async def _send(self, scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], pieces: AsyncIterator[bytes]) -> None:
        with self._context.seats.taken_by(caller_of(scope)):
            if (exchange := exchange_of(scope)) is not None:
                exchange.cancel_when_gone = True
            await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except (StreamEnded, PondkeeperError):  # the latter when the run is let go of meanwhile
                raise AnswerCut from None
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _whole(text: str) -> AsyncIterator[bytes]:
    """What history has of a log whose file has gone."""
    yield text.encode()


def _is_over(status: dict[str, Any]) -> bool:
    return status["phase"] in FINAL


def _flag(scope: Scope, name: str) -> bool:
    """Whether `?name`, `?name=true` or `?name=1` was asked for. Raises InvalidRequest."""
    values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
    if values is None:
        return False
    if values[-1] in ("", "true", "1"):
        return True
    if values[-1] in ("false", "0"):
        return False
    raise InvalidRequest(f"`{name}` is true or false.")


def _number(scope: Scope, name: str) -> int | None:
    """The number that was asked for. Raises InvalidRequest."""
    values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
    if values is None:
        return None
    if not (values[-1].isascii() and values[-1].isdecimal() and len(values[-1]) <= 15):
        raise InvalidRequest(f"`{name}` is a whole number of 0 or more.")
    return int(values[-1])


def _parameter(name: str, kind: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": kind}, "description": description}


_FOLLOW_STATUS: Final = [
    _parameter("follow", "boolean", "Answer with NDJSON, a line at each change, until the run has ended."),
    _parameter("log_offset", "integer", 'With `follow`: also the log from this byte on, as `{"log": text, "offset": …}`; takes the role writer.'),
]
_FOLLOW_LOG: Final = [
    _parameter("follow", "boolean", "Go on until the run has ended."),
    _parameter("offset", "integer", "From this byte on: where an answer that broke off had come to."),
    _parameter("tail", "integer", "The last so many lines."),
]

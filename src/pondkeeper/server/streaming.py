"""The answer of a query on its way to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from pondkeeper.errors import PondkeeperError
from pondkeeper.server.answers import send_whole
from pondkeeper.server.exchange import AnswerCut
from pondkeeper.server.formats import TELLS_WHEN_CUT
from pondkeeper.server.problems import NO_SNIFF, NO_STORE

if TYPE_CHECKING:
    from starlette.types import Send

    from pondkeeper.readers.answer import AnswerStream, Ending
    from pondkeeper.server.scopes import Headers

QUERY_ID: Final = b"pondkeeper-query-id"
VERSION: Final = b"pondkeeper-version"
ROW_COUNT: Final = b"pondkeeper-row-count"
TRUNCATED: Final = b"pondkeeper-truncated"
LIMIT: Final = b"pondkeeper-limit"
LAG: Final = b"pondkeeper-replica-lag-s"

_log = structlog.get_logger(__name__)


async def send_answer(send: Send, stream: AnswerStream, format_: str, asked: frozenset[str] = frozenset()) -> int:
    """Send the whole answer and return its bytes. Whoever ends this early, ends the query.

    `asked` are the limits that the caller set: an answer that ends at one of them is what was asked for.
    Raises what ended the query before its first byte; after that AnswerCut when the answer cannot be whole.
    """
    headers = _headers(stream)
    if stream.small is not None:
        headers.append((b"content-length", b"%d" % len(stream.small)))
        await send_whole(send, 200, headers, stream.small)
        return len(stream.small)
    try:
        return await _send_pieces(send, stream, format_, headers, asked)
    finally:
        await stream.cancel()


async def _send_pieces(send: Send, stream: AnswerStream, format_: str, headers: Headers, asked: frozenset[str]) -> int:
    """Send the pieces as they come. The head waits for the first, so that a query that fails before it says so."""
    start: dict[str, Any] | None = {"type": "http.response.start", "status": 200, "headers": headers}
    sent_bytes = 0
    try:
        async for piece in stream:
            if start is not None:
                await send(start)
                start = None
            sent_bytes += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except PondkeeperError as error:
        if start is not None:
            raise
        _log.info("an answer broke off", query_id=stream.query_id, error=error.to_wire(with_private=True))
        raise AnswerCut from error
    if start is not None:
        await send(start)
    if stream.ending is not None and not _may_end_here(stream.ending, format_, asked):
        _log.info("an answer was cut by a limit", query_id=stream.query_id, limit=stream.ending.limit)
        raise AnswerCut
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return sent_bytes


def _may_end_here(ending: Ending, format_: str, asked: frozenset[str]) -> bool:
    """Whether nobody can take the answer for more than it is: whole, cut where asked, or saying itself that it was cut."""
    return not ending.truncated or ending.limit in asked or format_ in TELLS_WHEN_CUT


def _headers(stream: AnswerStream) -> Headers:
    headers = [
        (b"content-type", stream.content_type.encode("latin-1")),
        (QUERY_ID, stream.query_id.encode("latin-1")),
        (VERSION, b"%d" % stream.version),
        NO_STORE,
        NO_SNIFF,
    ]
    if stream.lag_s is not None:
        headers.append((LAG, b"%.3f" % stream.lag_s))
    if stream.ending is not None:
        headers += _ending_headers(stream.ending)
    return headers


def _ending_headers(ending: Ending) -> Headers:
    headers = [(ROW_COUNT, b"%d" % ending.row_count), (TRUNCATED, b"true" if ending.truncated else b"false")]
    if ending.limit is not None:
        headers.append((LIMIT, ending.limit.encode("latin-1")))
    return headers

"""Errors as HTTP: the status, the headers and the envelope `{"error": {"code", "message", "remedy", …}}`."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.exceptions import HTTPException

from pondkeeper.errors import (
    ArchiveDamaged,
    DatabaseEncrypted,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseTooNew,
    DatabaseUnreadable,
    InvalidRequest,
    MethodNotAllowed,
    PondkeeperError,
    RouteNotFound,
)
from pondkeeper.server.scopes import Headers

DEFAULT_RETRY_AFTER_S: Final = 1
NO_STORE: Final = (b"cache-control", b"no-store")
NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
JSON: Final = (b"content-type", b"application/json")
# Why no Retry-After with these: it would make clients wait for what only a person can mend.
LASTING: Final = (DatabaseMissing, DatabaseUnreadable, DatabaseEncrypted, DatabaseTooNew, DatabaseReadOnly, ArchiveDamaged)
_FRAMEWORK_ERRORS: Final = {404: RouteNotFound, 405: MethodNotAllowed, 422: InvalidRequest}

_encoder = msgspec.json.Encoder(enc_hook=str)


def envelope(error: PondkeeperError, *, with_private: bool = False) -> bytes:
    """The body that tells a client of the error."""
    return _encoder.encode({"error": error.to_wire(with_private=with_private)})


def problem_headers(error: PondkeeperError, body: bytes) -> Headers:
    """The headers that go with the envelope."""
    headers = [JSON, (b"content-length", b"%d" % len(body)), NO_STORE, NO_SNIFF]
    status = error.http_status
    if status in (429, 503) and not isinstance(error, LASTING):
        headers.append((b"retry-after", b"%d" % _retry_after_s(error)))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="pondkeeper"'))
    if status == 405 and isinstance(allowed := error.details.get("allowed"), list):
        headers.append((b"allow", ", ".join(allowed).encode("latin-1", "replace")))
    return headers


def raw_problem(error: PondkeeperError) -> bytes:
    """The whole response as bytes, for a connection that is to be closed: there is no request to answer by ASGI."""
    body = envelope(error)
    headers = [*problem_headers(error, body), (b"connection", b"close")]
    phrase = HTTPStatus(error.http_status).phrase.encode()
    head = b"HTTP/1.1 %d %b\r\n" % (error.http_status, phrase)
    return b"".join([head, *(b"%b: %b\r\n" % header for header in headers), b"\r\n", body])


def of_framework(error: HTTPException) -> PondkeeperError:
    """The error of ours that says what Starlette or FastAPI found wrong."""
    kind = _FRAMEWORK_ERRORS.get(error.status_code)
    if kind is None:
        return InvalidRequest(str(error.detail)) if error.status_code < 500 else PondkeeperError()
    if kind is MethodNotAllowed:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(allowed=[method.strip() for method in allowed.split(",") if method.strip()])
    return kind()


def _retry_after_s(error: PondkeeperError) -> int:
    after_s: float = error.details.get("retry_after_s", DEFAULT_RETRY_AFTER_S)
    return max(1, math.ceil(after_s))

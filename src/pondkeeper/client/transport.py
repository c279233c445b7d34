"""HTTP to one keeper: how to reach it, when to try again, and its errors as our own classes."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpcore
import httpx
import msgspec

from pondkeeper import __version__
from pondkeeper.client.bodies import Body
from pondkeeper.errors import (
    AnswerIncomplete,
    DatabaseBusy,
    IdempotencyConflict,
    KeeperNotAnswering,
    KeeperNotRunning,
    KeeperStopping,
    OutcomeUnknown,
    ParameterInvalid,
    PondkeeperError,
    RequestRefused,
    SqlInvalid,
    StatementFailed,
    StatementNotAllowed,
    Unauthenticated,
    WorkerDied,
)

Headers: TypeAlias = dict[str, str]

CONNECT_TIMEOUT_S: Final = 5.0
# Why: below the server's own keep-alive, so that no request is sent into a connection that is just being closed.
KEEP_ALIVE_S: Final = 30.0
LEAST_WAIT_S: Final = 0.05
MOST_WAIT_S: Final = 1.0
MAX_ERROR_BYTES: Final = 1024 * 1024
MAX_SOCKET_PATH_BYTES: Final = 107
# What is said when nobody knows whether a write was applied, or when it surely was not: the same key settles it.
REPEATED: Final = (OutcomeUnknown, KeeperNotRunning, KeeperStopping, WorkerDied)
# What the writer says of a write after it has looked for its key: an earlier attempt was not applied.
VERDICTS: Final = (StatementFailed, SqlInvalid, StatementNotAllowed, ParameterInvalid, IdempotencyConflict)

# Why: no read timeout guards an answer (the keeper's deadlines do); these notice a host that is gone in two minutes.
_SOCKET_OPTIONS: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]


def remote_http(url: str, key: str | None, *, timeout_s: float | None) -> httpx.Client:
    """HTTP to a keeper at `url`, with `key` on every request. Raises RequestRefused for what can be neither."""
    _check(url, key)
    secure = not url.startswith("http://")
    transport = httpx.HTTPTransport(verify=secure, socket_options=_SOCKET_OPTIONS, limits=_limits())
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return _http(url, transport, headers, timeout_s)


def _check(url: str, key: str | None) -> None:
    try:
        usable = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise RequestRefused("The keeper's URL must look like http://host:8420.", remedy="Correct the URL.")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise Unauthenticated("The key holds characters that no key has.")


def local_http(socket_path: Path, *, timeout_s: float | None) -> httpx.Client:
    """HTTP over a keeper's control socket, whose owner needs no key."""
    transport = httpx.HTTPTransport(verify=False)
    # Why so: httpx has no way to name a backend; without ours, each failed attempt leaves a socket to the collector.
    transport._pool = httpcore.ConnectionPool(  # noqa: SLF001
        uds=str(socket_path), keepalive_expiry=KEEP_ALIVE_S, network_backend=_ControlSocket()
    )
    return _http("http://pondkeeper", transport, {}, timeout_s)


class _ControlSocket(httpcore.SyncBackend):
    """Connects to a Unix socket, and closes what could not be connected."""

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        try:
            with short_socket_path(Path(path)) as short, socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(timeout)
                probe.connect(short)
                return super().connect_unix_socket(short, timeout, socket_options)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


@contextlib.contextmanager
def short_socket_path(path: Path) -> Iterator[str]:
    """A path to the socket that fits into a socket address: 107 bytes, which a deep home exceeds. Raises OSError.

    Asked anew for each connection: the home may be made, or made again, after the client.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _limits() -> httpx.Limits:
    return httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)


def _http(url: str, transport: httpx.HTTPTransport, headers: dict[str, str], timeout_s: float | None) -> httpx.Client:
    return httpx.Client(
        base_url=url,
        transport=transport,
        headers={"User-Agent": f"pondkeeper/{__version__}", **headers},
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
    )


class Patience:
    """How long, and how often, one request is repeated; each wait is longer, and never the same for two clients."""

    def __init__(self, retry_for_s: float, retries: int | None) -> None:
        self._give_up_at = time.monotonic() + retry_for_s
        self._retries = retries
        self._wait_s = LEAST_WAIT_S

    def wait(self, at_least_s: float = 0.0) -> bool:
        """Wait before the next try; False, at once, when there is to be none."""
        wait_s = max(at_least_s, self._wait_s * random.uniform(0.5, 1.0))
        if self._retries == 0 or time.monotonic() + wait_s > self._give_up_at:
            return False
        time.sleep(wait_s)
        self._wait_s = min(2 * self._wait_s, MOST_WAIT_S)
        if self._retries is not None:
            self._retries -= 1
        return True


class Transport:
    """Requests to one keeper: tries again while it says 503 with Retry-After, raises its errors by their codes."""

    def __init__(self, http: httpx.Client, place: str, *, retry_for_s: float, retries: int | None = None) -> None:
        self._http = http
        self._place = place
        self._retry_for_s = retry_for_s
        self._retries = retries

    def close(self) -> None:
        self._http.close()

    @property
    def repeats(self) -> bool:
        """Whether a request is ever sent again."""
        return self._retries != 0 and self._retry_for_s > 0

    def patience(self) -> Patience:
        """The patience for one request, over all its tries."""
        return Patience(self._retry_for_s, self._retries)

    def write(self, path: str, body: Any, idempotency_key: str | None) -> Any:
        """The outcome of a write; one with a key is repeated as long as nobody knows what became of it."""
        if idempotency_key is None:
            once = Patience(0, retries=0) if isinstance(body, Body) and not body.is_repeatable else None
            return self.call("POST", path, body=body, writes=True, patience=once)
        patience, headers = self.patience(), {"Idempotency-Key": idempotency_key}
        if isinstance(body, Body) and not body.is_repeatable:
            patience = Patience(0, retries=0)
        unknown: PondkeeperError | None = None
        while True:
            try:
                return self.call("POST", path, body=body, writes=True, headers=headers, patience=patience)
            except PondkeeperError as error:
                unknown = error if isinstance(error, OutcomeUnknown) else unknown
                if isinstance(error, REPEATED) and patience.wait():
                    continue
                if unknown is None or isinstance(error, VERDICTS):
                    raise
                raise unknown from None  # Why: an attempt that never arrived says nothing of an earlier one.

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        writes: bool = False,
        headers: Headers | None = None,
        patience: Patience | None = None,
    ) -> Any:
        """The JSON that the keeper answers; None where it answers without a body."""
        response = self.open(method, path, body=body, writes=writes, headers=headers, patience=patience)
        try:
            content = response.read()
        except httpx.HTTPError as error:
            raise lost(error, writes=writes) from error
        finally:
            response.close()
        return decoded(content, writes=writes) if content else None

    def open(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        accept: str = "application/json",
        writes: bool = False,
        headers: Headers | None = None,
        patience: Patience | None = None,
    ) -> httpx.Response:
        """The head of a good answer, its body still to be read; whoever calls closes it."""
        patience = patience or self.patience()
        while True:
            response = self._send(method, path, body, {"Accept": accept} | (headers or {}), writes)
            if response.is_success:
                return response
            wait_s = _retry_after_s(response)
            error = _error_of(response, writes=writes)
            if wait_s is None or _has_waited_enough(body, error) or not patience.wait(wait_s):
                raise error

    def _send(self, method: str, path: str, body: Any, headers: Headers, writes: bool) -> httpx.Response:
        content: bytes | Iterator[bytes] | None = None
        if isinstance(body, Body):
            content = body.pieces()
            headers = headers | {"Content-Type": body.content_type}
            if body.size_bytes is not None:
                headers |= {"Content-Length": str(body.size_bytes)}
        elif body is not None:
            content = msgspec.json.encode(body)
            headers = headers | {"Content-Type": "application/json"}
        request = self._http.build_request(method, path, content=content, headers=headers)
        try:
            return self._http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise KeeperNotRunning(private=f"{self._place}: {error}") from error
        except httpx.HTTPError as error:
            raise lost(error, writes=writes) from error


def lost(error: httpx.HTTPError, *, writes: bool = False) -> PondkeeperError:
    """What it means that a connection was lost after the request was sent."""
    if writes:
        return OutcomeUnknown(
            "The connection was lost before the keeper said what became of the write.", private=str(error)
        )
    if isinstance(error, httpx.TimeoutException):
        return KeeperNotAnswering(private=str(error))
    return AnswerIncomplete(private=str(error))


def decoded(content: bytes, *, writes: bool = False) -> Any:
    """The JSON of a body; a cut one is an `AnswerIncomplete`, and where it was to tell of a write, an `OutcomeUnknown`."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise (OutcomeUnknown if writes else AnswerIncomplete)(private=str(error)) from error


def _has_waited_enough(body: Any, error: PondkeeperError) -> bool:
    """Whether the turn of a write did not come for as long as its caller wanted to wait: that is the answer, and no hiccup."""
    return isinstance(error, DatabaseBusy) and isinstance(body, dict) and "wait_s" in body.get("limits", {})


def _retry_after_s(response: httpx.Response) -> float | None:
    """How long a 503 asks us to wait; None for everything that must not be repeated."""
    if response.status_code != 503:
        return None
    try:
        return max(LEAST_WAIT_S, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _error_of(response: httpx.Response, *, writes: bool = False) -> PondkeeperError:
    """The error that an answer describes; closes the answer."""
    try:
        content = b"".join(_bounded(response))
    except httpx.HTTPError as error:
        return lost(error, writes=writes)
    finally:
        response.close()
    try:
        wire = msgspec.json.decode(content)["error"]
        return PondkeeperError.from_wire(wire)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        # Why unknown: a proxy that says 502 or 504 may have lost a keeper that has the write.
        kind = OutcomeUnknown if writes and response.status_code >= 500 else PondkeeperError
        return kind(
            f"The server answered HTTP {response.status_code}, and not as a keeper does.",
            remedy="Check the URL, and whether a proxy stands before the keeper.",
        )


def _bounded(response: httpx.Response) -> Iterator[bytes]:
    received = 0
    for chunk in response.iter_bytes():
        received += len(chunk)
        yield chunk
        if received > MAX_ERROR_BYTES:
            return

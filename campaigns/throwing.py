"""Throw a bomb at a keeper, as its client sees it, and name how it ended."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from campaigns.arsenal import Bomb

ACCEPT = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
SLOW_BUFFER_BYTES = 16 * 1024
TAIL_BYTES = 400
PATIENCE_S = 90.0
STALLED_S = 4.0  # longer than any deadline here
NOT_THROWN, TRIES, BETWEEN_TRIES_S = "readers_busy", 10, 0.2


@dataclass(frozen=True)
class End:
    """How a request ended: the code of its error or what its answer says of itself; after how long; and its bytes."""

    how: str
    after_s: float
    size_bytes: int = 0
    message: str = ""


@dataclass(frozen=True)
class Target:
    """Where to throw, as whom."""

    port: int
    key: str

    def throw(self, bomb: Bomb) -> End:
        """Send it and take the answer; never raises for what the keeper does.

        One that finds no reader free within its short time was never thrown, and is thrown again, a bounded number of times.
        """
        end = self._throw_once(bomb)
        for _ in range(TRIES):
            if end.how != NOT_THROWN or NOT_THROWN in bomb.ends:
                break
            time.sleep(BETWEEN_TRIES_S)
            end = self._throw_once(bomb)
        return end

    def _throw_once(self, bomb: Bomb) -> End:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            if bomb.reads_bytes_per_s is not None:
                connection.connect()
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
            how, size_bytes, message = self._thrown(connection, bomb)
        except TimeoutError:
            how, size_bytes, message = "no answer", 0, ""
        except (OSError, http.client.HTTPException) as error:
            how, size_bytes, message = f"connection lost: {type(error).__name__}", 0, str(error)
        finally:
            connection.close()
        return End(how, time.monotonic() - began, size_bytes, message)

    def _thrown(self, connection: http.client.HTTPConnection, bomb: Bomb) -> tuple[str, int, str]:
        limits = {"limits": {"timeout_s": bomb.timeout_s}} if bomb.timeout_s else {}
        request = {"sql": bomb.make(), "parameters": bomb.parameters, **limits}
        body = bomb.body() if bomb.body else json.dumps(request).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Accept": ACCEPT[bomb.format]}
        try:
            connection.request("POST", f"/v1/{bomb.door}", body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what is too large is refused before it has arrived, and the answer may be there to be read
        with connection.getresponse() as response:
            if response.status >= 300:
                error = json.loads(response.read())["error"]
                return error["code"], 0, error["message"][:200]
            return _judged(response, bomb)


def _judged(response: http.client.HTTPResponse, bomb: Bomb) -> tuple[str, int, str]:
    """What the answer says of itself."""
    kept, size_bytes = bytearray(), 0
    keeps_all = bomb.format in ("arrow", "parquet")
    try:
        for piece in _pieces(response, bomb.reads_bytes_per_s):
            size_bytes += len(piece)
            kept += piece
            if not keeps_all:
                del kept[:-TAIL_BYTES]
    except (http.client.IncompleteRead, OSError):
        return "broken off", size_bytes, ""
    limit = response.headers.get("Pondkeeper-Limit") or _limit_in(bytes(kept), bomb.format)
    return f"cut:{limit}" if limit else "answered", size_bytes, ""


def _pieces(response: http.client.HTTPResponse, bytes_per_s: float | None) -> Iterator[bytes]:
    if bytes_per_s == 0.0:
        time.sleep(STALLED_S)
    while piece := response.read(1 << 18 if not bytes_per_s else 8192):
        yield piece
        if bytes_per_s:
            time.sleep(len(piece) / bytes_per_s)


def _limit_in(body: bytes, format_: str) -> str | None:
    """The limit that the answer itself names; None when it is whole."""
    if format_ == "json":
        _, _, tail = body.rpartition(b'"row_count":')
        said = json.loads(b'{"row_count":' + tail)
        return str(said["limit"]) if said["truncated"] else None
    if format_ == "arrow":
        return _limit_in_arrow(body)
    if format_ == "parquet":
        told = pq.read_metadata(pa.BufferReader(body)).metadata or {}
        return told.get(b"pondkeeper.limit", b"").decode() or None
    return None


def _limit_in_arrow(body: bytes) -> str | None:
    found = None
    with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
        try:
            while True:
                batch = reader.read_next_batch_with_custom_metadata()
                if batch.custom_metadata:
                    found = batch.custom_metadata.get(b"pondkeeper.limit", b"").decode() or None
        except StopIteration:
            return found

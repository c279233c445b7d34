"""An answer on its way: bytes in the format asked for, as they arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final

import httpx

from pondkeeper.client.endings import TAIL_BYTES, limit_in
from pondkeeper.client.transport import lost

VERSION_HEADER: Final = "Pondkeeper-Version"
QUERY_HEADER: Final = "Pondkeeper-Query-Id"
LIMIT_HEADER: Final = "Pondkeeper-Limit"


class AnswerStream:
    """The bytes of one answer; close it (or leave its `with`) before the end, and the keeper kills the query.

    Also a readable binary file, so that `pyarrow.ipc.open_stream` and `shutil.copyfileobj` take it as it is.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = response.iter_bytes()
        self._pending: deque[bytes] = deque()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    @property
    def content_type(self) -> str:
        """The media type of the bytes."""
        return str(self._response.headers.get("Content-Type", ""))

    @property
    def version(self) -> int | None:
        """The version of the snapshot that answers."""
        value = self.header(VERSION_HEADER)
        return int(value) if value else None

    @property
    def query_id(self) -> str | None:
        """The id by which `Client.cancel` knows the query."""
        return self.header(QUERY_HEADER)

    @property
    def limit(self) -> str | None:
        """The limit that cut the answer, once all of it has arrived; None when it is whole.

        An NDJSON or CSV answer that does not fit into one piece cannot say it: the keeper breaks it off instead.
        """
        return self.header(LIMIT_HEADER) or limit_in(self.content_type, b"".join(self._tail))

    def header(self, name: str) -> str | None:
        """Any header of the answer's head."""
        value = self._response.headers.get(name)
        return None if value is None else str(value)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._next():
            yield chunk

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end; everything that is left when negative."""
        wanted = size if size >= 0 else None
        pieces: list[bytes] = []
        received = 0
        while wanted is None or received < wanted:
            chunk = self._next()
            if not chunk:
                break
            pieces.append(chunk)
            received += len(chunk)
        if wanted is not None and received > wanted:
            last = pieces.pop()
            keep = len(last) - (received - wanted)
            pieces.append(last[:keep])
            self._pending.appendleft(last[keep:])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _next(self) -> bytes:
        """The next bytes as they came; empty at the end."""
        if self._pending:
            return self._pending.popleft()
        try:
            chunk = next(self._chunks, b"")
        except httpx.HTTPError as error:
            raise lost(error) from error
        self._keep(chunk)
        return chunk

    def _keep(self, chunk: bytes) -> None:
        """Remember the last pieces: the end of an answer says whether it was cut."""
        self._tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._response.is_closed and not self._pending

    def close(self) -> None:
        """End it here; what has not arrived will not be computed."""
        self._pending.clear()
        self._response.close()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

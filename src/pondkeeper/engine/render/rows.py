"""Rows of text from a running query, in blocks, cut at the limits between two rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import duckdb

# Why: rows are Python strings for a moment; blocks that fit the processor's cache are made a quarter faster.
_BLOCK_BYTES: Final = 64 * 1024
_FIRST_ROWS: Final = 32
_MOST_ROWS: Final = 2048
_GROWTH: Final = 16


@dataclass(frozen=True)
class Ending:
    """How an answer ended: how many rows it holds, and which limit cut it, if one did."""

    row_count: int
    truncated: bool
    limit: str | None


class TextRows:
    """The rows of a one-column result, joined into blocks. `ending` is there when the blocks are exhausted.

    Why: DuckDB hands rows over a few at a time, so the next fetch asks for as many as fit a block by what the last ones
    measured; a table of megabyte-wide rows then costs one block and not thousands of rows.
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, separator: str, *, max_rows: int, max_bytes: int, spent_bytes: int
    ) -> None:
        self._cursor = cursor
        self._separator = separator
        self._rows_left = max_rows
        self._bytes_left = max_bytes - spent_bytes
        self._row_count = 0
        self._batch_rows = _FIRST_ROWS
        self.ending: Ending | None = None

    def __iter__(self) -> Iterator[bytes]:
        while self.ending is None:
            block = self._next()
            if block:
                yield block

    def _next(self) -> bytes:
        # Why: one row more than is wanted tells a cut answer from one that just fits.
        rows = self._cursor.fetchmany(min(self._batch_rows, self._rows_left + 1))
        if not rows:
            self._end(None)
            return b""
        texts = [row[0] for row in rows]
        if len(texts) > self._rows_left:
            del texts[self._rows_left :]
            self._end("max_rows")
        return self._block(texts)

    def _block(self, texts: list[str]) -> bytes:
        block = self._join(texts)
        if len(block) > self._bytes_left:
            texts = texts[: self._fitting(texts)]
            block = self._join(texts)
            self._end("max_bytes")
        self._row_count += len(texts)
        self._rows_left -= len(texts)
        self._bytes_left -= len(block)
        if self.ending is not None:
            self._end(self.ending.limit)
        elif len(texts):
            wanted = len(texts) * _BLOCK_BYTES // max(len(block), 1)
            self._batch_rows = max(1, min(wanted, self._batch_rows * _GROWTH, _MOST_ROWS))
        return block

    def _join(self, texts: list[str]) -> bytes:
        if not texts:
            return b""
        body = self._separator.join(texts)
        return (self._separator + body if self._row_count else body).encode()

    def _fitting(self, texts: list[str]) -> int:
        """How many of the texts fit the bytes that are left."""
        sizes = [len(text.encode()) + len(self._separator) for text in texts]
        if not self._row_count and sizes:
            sizes[0] -= len(self._separator)
        return sum(1 for size in accumulate(sizes) if size <= self._bytes_left)

    def _end(self, limit: str | None) -> None:
        self.ending = Ending(self._row_count, limit is not None, limit)

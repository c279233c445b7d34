"""One reading statement, rendered: `render` runs it far enough to know its columns and its first rows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import duckdb
import msgspec

from pondkeeper.engine import parameters as placeholders
from pondkeeper.engine.faults import translate
from pondkeeper.engine.render import arrow, csv, parquet
from pondkeeper.engine.render import json as canonical
from pondkeeper.engine.render.binding import Bound, bind
from pondkeeper.engine.render.known import KnownStatements
from pondkeeper.engine.render.rows import Ending, TextRows
from pondkeeper.engine.render.types import Column
from pondkeeper.engine.statements import ReadingStatement
from pondkeeper.errors import InvalidRequest, PondkeeperError

CONTENT_TYPES: Final = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
CHUNK_BYTES: Final = 256 * 1024
Chunk = bytes | memoryview
_LINE: Final = re.compile(r"\bLINE (\d+):")
_TAIL_BYTES: Final = 160  # Room for what follows the rows of a JSON answer.


class Answer:
    """An answer on its way. Its first rows are there; the others are fetched while the chunks are taken."""

    def __init__(self, content_type: str, columns: Sequence[Column], pieces: Iterator[Chunk], state: _State) -> None:
        self.content_type = content_type
        self.columns = [{"name": column.name, "type": column.type.name} for column in columns]
        self._pieces = pieces
        self._state = state

    def chunks(self) -> Iterator[Chunk]:
        """The body in pieces of about 256 KiB; faults of the running query leave as PondkeeperError."""
        try:
            yield from _gathered(self._pieces)
        except Exception as error:  # Why: the query runs while we stream, and DuckDB and Arrow raise many classes.
            raise in_their_lines(error) from error

    @property
    def ending(self) -> Ending | None:
        """How it ended; None until the chunks are exhausted."""
        return self._state.ending


@dataclass
class _State:
    started: float
    version: int
    ending: Ending | None = None


def render(
    cursor: duckdb.DuckDBPyConnection,
    statement: ReadingStatement,
    parameters: object,
    format: str,  # noqa: A002  Why: it is the word of the API.
    max_rows: int,
    max_bytes: int,
    version: int,
    known: KnownStatements | None = None,
) -> Answer:
    """Run the statement on a read-only cursor and render it; faults before the first rows are raised from here."""
    if format not in CONTENT_TYPES:
        raise InvalidRequest(f"There is no format {format!r}.", remedy=f"Ask for one of {', '.join(CONTENT_TYPES)}.")
    state = _State(time.monotonic(), version)
    given = placeholders.bind(statement.parameter_names, parameters)
    try:
        bound = bind(cursor, statement, given, known or KnownStatements())
        pieces = _started(_PIECES[format](bound, state, max_rows, max_bytes))
    except Exception as error:  # Why: DuckDB and Arrow raise many classes here, and each of them has a translation.
        raise in_their_lines(error) from error
    return Answer(CONTENT_TYPES[format], bound.columns, pieces, state)


def in_their_lines(error: Exception) -> PondkeeperError:
    """The error with the line numbers of the guest's text: inside our parentheses it begins on the second line."""
    told = translate(error)
    told.message = _LINE.sub(lambda found: f"LINE {max(int(found[1]) - 1, 1)}:", told.message)
    return told


def _started(pieces: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same pieces with the first rows fetched, so that what fails at once fails before the head is sent."""
    head = next(pieces)
    first = next(pieces, b"")
    return chain((head, first), pieces)


def _json(bound: Bound, state: _State, max_rows: int, max_bytes: int) -> Iterator[Chunk]:
    columns = [{"name": column.name, "type": column.type.name} for column in bound.columns]
    head = b'{"columns":' + _dumps(columns) + b',"rows":['
    yield head
    rows = _text_rows(bound, canonical.array_row, ",", max_rows, max_bytes, len(head) + _TAIL_BYTES)
    yield from rows
    state.ending = ending = rows.ending
    assert ending is not None
    tail = {
        "row_count": ending.row_count,
        "truncated": ending.truncated,
        "limit": ending.limit,
        "version": state.version,
        "elapsed_ms": round((time.monotonic() - state.started) * 1000, 3),
    }
    yield b"]," + _dumps(tail)[1:]


def _ndjson(bound: Bound, state: _State, max_rows: int, max_bytes: int) -> Iterator[Chunk]:
    yield b""
    yield from _lines(_text_rows(bound, canonical.object_row, "\n", max_rows, max_bytes, 1), b"\n", state)


def _csv(bound: Bound, state: _State, max_rows: int, max_bytes: int) -> Iterator[Chunk]:
    head = (csv.header(bound.columns) + "\r\n").encode()
    yield head
    yield from _lines(_text_rows(bound, csv.row, "\r\n", max_rows, max_bytes, len(head) + 2), b"\r\n", state)


def _lines(rows: TextRows, line_end: bytes, state: _State) -> Iterator[Chunk]:
    yield from rows
    if rows.ending and rows.ending.row_count:
        yield line_end
    state.ending = rows.ending


def _text_rows(
    bound: Bound,
    row: Callable[[Sequence[Column], Sequence[str]], str],
    separator: str,
    max_rows: int,
    max_bytes: int,
    spent_bytes: int,
) -> TextRows:
    cursor = bound.cursor.execute(bound.rendered(row), bound.parameters)
    return TextRows(cursor, separator, max_rows=max_rows, max_bytes=max_bytes, spent_bytes=spent_bytes)


def _arrow(bound: Bound, state: _State, max_rows: int, max_bytes: int) -> Iterator[Chunk]:
    yield from _batched(arrow.stream, bound, state, max_rows, max_bytes)


def _parquet(bound: Bound, state: _State, max_rows: int, max_bytes: int) -> Iterator[Chunk]:
    yield from _batched(parquet.stream, bound, state, max_rows, max_bytes)


def _batched(stream: Any, bound: Bound, state: _State, max_rows: int, max_bytes: int) -> Iterator[Chunk]:
    yield b""
    limits = arrow.BatchLimits(max_rows, max_bytes)
    schema, source = arrow.batches(bound, parquet=stream is parquet.stream, version=state.version)
    for parts in stream(schema, source, limits):
        yield from parts
    state.ending = limits.ending


def _gathered(pieces: Iterator[Chunk]) -> Iterator[Chunk]:
    """The pieces, small ones put together; a piece that is large already passes without a copy."""
    waiting: list[Chunk] = []
    size = 0
    for piece in pieces:
        if len(piece) >= CHUNK_BYTES:
            if waiting:
                yield b"".join(waiting)
                waiting, size = [], 0
            yield piece
            continue
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)


_dumps: Final = msgspec.json.Encoder().encode
_PIECES: Final[dict[str, Callable[[Bound, _State, int, int], Iterator[Chunk]]]] = {
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
}

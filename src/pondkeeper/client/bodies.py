"""Bodies of ingests: whatever holds rows, as bytes that can be sent, again if need be, and the format that they are in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from pondkeeper.errors import RequestRefused

PIECE_BYTES: Final = 1024 * 1024
CONTENT_TYPES: Final = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
SUFFIXES: Final = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_rows: Final = msgspec.json.Encoder(enc_hook=str)
OnSent = Callable[[int], None]


@dataclass(frozen=True)
class Body:
    """What is sent: `pieces()` begins anew each time, but `is_repeatable` says whether there is anything left then."""

    format: str
    pieces: Callable[[], Iterator[bytes]]
    size_bytes: int | None = None
    is_repeatable: bool = True

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.format]

    def counted(self, on_sent: OnSent) -> Body:
        """The same, that tells of each piece how many bytes it was."""
        return replace(self, pieces=lambda: _counted(self.pieces(), on_sent))


def format_of(path: Path) -> str:
    """The format that the name of a file tells. Raises RequestRefused."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise RequestRefused(
            f"The name {path.name!r} does not tell a format.", remedy=f"Name one: {', '.join(CONTENT_TYPES)}."
        ) from None


def key_name(name: str) -> str:
    """A column as the list of keys in a URL names it."""
    return '"' + name.replace('"', '""') + '"' if any(each in name for each in ',"') or name != name.strip() else name


def body_of(data: Any, format_: str | None) -> Body:
    """The body that `data` makes: a path, bytes, an open file, an Arrow table or reader, rows as dicts, or pieces of bytes.

    Raises RequestRefused for what is none of these.
    """
    if format_ is not None and format_ not in CONTENT_TYPES:
        raise RequestRefused(f"There is no format {format_!r}.", remedy=f"Use one of {', '.join(CONTENT_TYPES)}.")
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return Body(format_ or format_of(path), lambda: _of_file(path), path.stat().st_size)
    if isinstance(data, bytes | bytearray | memoryview):
        return Body(_named(format_), lambda: iter((bytes(data),)), len(data))
    if hasattr(data, "__arrow_c_stream__"):
        return _of_arrow(data)
    if hasattr(data, "read"):
        return Body(_named(format_), lambda: iter(lambda: data.read(PIECE_BYTES), b""), is_repeatable=False)
    if isinstance(data, Mapping):
        data = [data]
    if isinstance(data, Iterable):
        return _of_items(data, format_)
    raise RequestRefused(f"Rows cannot be read from {type(data).__name__}.")


def _named(format_: str | None) -> str:
    if format_ is None:
        raise RequestRefused("Bytes do not tell their format.", remedy=f"Pass format=, one of {', '.join(CONTENT_TYPES)}.")
    return format_


def _of_file(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _of_arrow(data: Any) -> Body:
    """A pyarrow Table or RecordBatchReader, or anything of that protocol (polars, DuckDB's relations): as an Arrow stream."""
    import pyarrow as pa

    is_repeatable = isinstance(data, pa.Table | pa.RecordBatch)
    return Body("arrow", lambda: _stream(pa.RecordBatchReader.from_stream(data)), is_repeatable=is_repeatable)


class _Sink:
    """A file for Arrow's writer that keeps what it is given until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size_bytes = 0

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def taken(self) -> bytes:
        taken, self._parts, self.size_bytes = b"".join(self._parts), [], 0
        return taken


def _stream(reader: Any) -> Iterator[bytes]:
    import pyarrow as pa

    sink = _Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            if sink.size_bytes >= PIECE_BYTES:
                yield sink.taken()
    yield sink.taken()


def _of_items(items: Iterable[Any], format_: str | None) -> Body:
    """Rows as dicts, sent as NDJSON; or pieces of bytes in a format that is named."""
    is_repeatable = isinstance(items, list | tuple)
    if format_ is not None:
        return Body(format_, lambda: iter(items), is_repeatable=is_repeatable)
    return Body("ndjson", lambda: _lines(items), is_repeatable=is_repeatable)


def _lines(rows: Iterable[Any]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size_bytes = 0
    for row in rows:
        line = _rows.encode(row)
        waiting.append(line)
        size_bytes += len(line) + 1
        if size_bytes >= PIECE_BYTES:
            yield b"\n".join(waiting) + b"\n"
            waiting, size_bytes = [], 0
    if waiting:
        yield b"\n".join(waiting) + b"\n"


def _counted(pieces: Iterator[bytes], on_sent: OnSent) -> Iterator[bytes]:
    """The pieces; tells after each how many bytes it was. Sent again, it counts anew with the bytes before taken off."""
    sent_bytes = 0
    try:
        for piece in pieces:
            yield piece
            sent_bytes += len(piece)
            on_sent(len(piece))
        sent_bytes = 0
    finally:
        if sent_bytes:
            on_sent(-sent_bytes)

"""Which accepted ingests are loaded together, and how their bodies become one.

Only those that mean the same together as one by one: neighbours with the same table, options and columns, whose rows the
keeper can tell apart without an engine. All others are loaded as they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from pondkeeper.databases.requests import IngestPart, IngestRequest
from pondkeeper.writer.spool.log import Entry, Header

ROWS_FORMATS: Final = ("ndjson", "json")
TOGETHER_MODES: Final = ("append", "upsert")
MOST_KINDS: Final = 1000
Kind = tuple[object, ...]

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Rows:
    """The rows of a body, a line each, and what all of it must share with another to be loaded with it."""

    kind: Kind
    lines: Sequence[bytes]


@dataclass(frozen=True)
class Load:
    """Entries that are loaded in one transaction. `rows` are those of each; None where the body is taken as it is."""

    entries: Sequence[Entry]
    rows: Sequence[Rows] | None = None

    @property
    def count(self) -> int:
        return len(self.entries)

    def cut(self, sizes: Iterable[int]) -> Iterator[Load]:
        """The same entries in loads of these sizes, in order."""
        begin = 0
        for size in sizes:
            end = begin + size
            yield Load(self.entries[begin:end], None if self.rows is None else self.rows[begin:end])
            begin = end


class Combiner:
    """Cuts batches into loads. Remembers which tables were made or widened by whom, as far as that spares a load."""

    def __init__(self) -> None:
        self._settled_kinds: set[Kind] = set()

    def loads(self, entries: Iterable[Entry]) -> list[Load]:
        """The loads of a batch, in order."""
        found: list[tuple[list[Entry], list[Rows] | None]] = []
        for entry in entries:
            rows = self._rows(entry)
            last = found[-1][1] if found else None
            if rows is not None and last is not None and last[0].kind == rows.kind and self._may_join(entry.header, rows):
                found[-1][0].append(entry)
                last.append(rows)
            else:
                found.append(([entry], None if rows is None else [rows]))
        return [Load(entries, rows) for entries, rows in found]

    def loaded(self, load: Load) -> None:
        """A load was committed: its table exists now, and has the columns."""
        header = load.entries[0].header
        if load.rows is not None and (header.create or header.evolve):
            if len(self._settled_kinds) >= MOST_KINDS:
                self._settled_kinds.clear()
            self._settled_kinds.add(load.rows[0].kind)

    def _may_join(self, header: Header, rows: Rows) -> bool:
        # Why: the rows of the first alone decide the types of a table that is made, or of a column that is added.
        return not (header.create or header.evolve) or rows.kind in self._settled_kinds

    def _rows(self, entry: Entry) -> Rows | None:
        header = entry.header
        is_plain = header.format in ROWS_FORMATS and header.mode in TOGETHER_MODES and header.on_error == "abort"
        if not is_plain or header.file is not None:
            return None
        try:
            lines = _lines(header.format, entry.body)
            names = {frozenset(_object.decode(line)) for line in lines}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # its own load will say what is wrong with it
            return None
        if len(names) != 1:  # Why: a column that a row leaves out is not the same as one that all rows leave out.
            return None
        options = (header.schema, header.table, header.mode, header.keys, header.create, header.evolve)
        return Rows((*options, next(iter(names))), lines)


def _lines(format_: str, body: bytes) -> list[bytes]:
    if format_ == "ndjson":
        return [line for line in body.splitlines() if line.strip()]
    # Why: JSON has no line breaks but between its tokens, so a blank is as good.
    return [bytes(each).replace(b"\n", b" ").replace(b"\r", b" ") for each in _objects.decode(body)]


def request_of(load: Load, body: Path, timeout_s: float, keys: Sequence[str], client: str) -> IngestRequest:
    """What is asked of the database for a load whose body lies in this file; `keys` name the outcome of each entry."""
    first = load.entries[0].header
    is_one = load.count == 1
    parts: tuple[IngestPart, ...] = ()
    if not is_one:
        assert load.rows is not None
        parts = tuple(
            IngestPart(key, entry.header.digest, len(rows.lines))
            for key, entry, rows in zip(keys, load.entries, load.rows, strict=True)
        )
    return IngestRequest(
        schema=first.schema,
        table=first.table,
        format=first.format if is_one else "ndjson",
        body=body,
        mode=first.mode,
        keys=first.keys,
        create=first.create,
        evolve=first.evolve,
        on_error=first.on_error,
        timeout_s=timeout_s,
        key_id=first.key_id,
        client=client,
        idempotency_key=keys[0] if is_one else None,
        priority=first.priority,
        delimiter=first.delimiter,
        has_header=first.has_header,
        body_digest=first.body_digest if is_one else None,
        parts=parts,
    )


def write_body(load: Load, path: Path) -> None:
    """Put the body of a load into this file; not durable, since the log has it."""
    with path.open("xb") as file:
        if load.count == 1:
            file.write(load.entries[0].body)
            return
        for rows in load.rows or ():
            file.write(b"\n".join(rows.lines) + b"\n")

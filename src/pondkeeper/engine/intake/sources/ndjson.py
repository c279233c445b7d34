"""Objects as JSON: one on each line, or the elements of a document. Values stay the very text that they are in the body."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import pyarrow as pa

from pondkeeper.engine.intake.sources.document import Document
from pondkeeper.engine.intake.sources.rows import MAX_ROW_BYTES, PLACE, BadRow, OnBad, check_names
from pondkeeper.errors import BodyInvalid

READ_BYTES: Final = 1024 * 1024
_BATCH_ROWS: Final = 8192
_SHOWN_CHARS: Final = 1000
_MOST_LEVELS: Final = 100
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_BOM: Final = b"\xef\xbb\xbf"
Row = tuple[int, bytes]
Fields = dict[str, msgspec.Raw]


class JsonSource:
    """Rows of JSON objects. A key that a row does not have is NULL in it."""

    form: Final = "json"

    def __init__(self, path: Path, *, lines: bool) -> None:
        self.word: Literal["line", "row"] = "line" if lines else "row"
        self._path = path
        self._lines = lines
        self._present: set[str] = set()
        self._others: dict[str, int] = {}
        self._names: list[str] | None = None
        self.deep: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str] | None:
        return self._names

    def survey(self) -> list[str]:
        """The keys of all rows, in the order in which they came first."""
        if self._names is None:
            found: dict[str, bool] = {}
            for _, fields, text in self._records(lambda bad: None):
                if text.count(b"[") + text.count(b"{") <= _MOST_LEVELS:
                    for key in fields:
                        found.setdefault(key, False)
                else:
                    found |= {key: found.get(key, False) or _is_deep(bytes(raw)) for key, raw in fields.items()}
                if len(found) > 10 * MAX_ROW_BYTES // 1024:
                    break
            check_names(list(found))
            self._names = list(found)
            self.deep = frozenset(name for name, is_deep in found.items() if is_deep)
        return self._names

    def read(self, names: Sequence[str], on_bad: OnBad) -> pa.RecordBatchReader:
        schema = pa.schema([(PLACE, pa.int64()), *((name, pa.string()) for name in names)])
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema, list(names), on_bad))

    def seen(self) -> tuple[list[str], dict[str, int]]:
        return sorted(self._present), dict(self._others)

    # A pass

    def _batches(self, schema: pa.Schema, names: list[str], on_bad: OnBad) -> Iterator[pa.RecordBatch]:
        self._present, self._others = set(), {}
        places: list[int] = []
        columns: dict[str, list[bytes | None]] = {name: [] for name in names}
        keys = _Keys(names, self._others)
        for place, fields, _ in self._records(on_bad):
            row = {name: value for key, value in fields.items() if (name := keys.name(key, place)) is not None}
            self._present.update(row)
            places.append(place)
            for name, values in columns.items():
                values.append(_value(row.get(name)))
            if len(places) >= _BATCH_ROWS:
                yield _batch(schema, places, columns)
                places, columns = [], {name: [] for name in names}
        if places:
            yield _batch(schema, places, columns)

    def _records(self, on_bad: OnBad) -> Iterator[tuple[int, Fields, bytes]]:
        """Each row by its keys, and its text; what is no object goes to `on_bad`."""
        if self._lines:
            yield from _decoded(lines_of(self._path, on_bad), _object, on_bad)
            return
        document = Document(self._path)
        names = document.column_names()
        yield from _decoded(document.rows(), _object if names is None else _tuple_of(names), on_bad)


class _Keys:
    """Which column a key means: that of its very name, else one that differs in the case of its letters only."""

    def __init__(self, names: Sequence[str], others: dict[str, int]) -> None:
        self._known: dict[str, str | None] = {name: name for name in names}
        self._lower = {name.lower(): name for name in names}
        self._others = others

    def name(self, key: str, place: int) -> str | None:
        try:
            return self._known[key]
        except KeyError:
            found = self._lower.get(key.lower())
            if len(self._known) < 100_000:
                self._known[key] = found
            if found is None and len(self._others) < 1000:
                self._others.setdefault(key, place)
            return found


def _is_deep(text: bytes) -> bool:
    """Whether a value has very many levels; one whose strings are full of brackets may be taken for such.

    Trap: 2.0 describes 128 levels (json_structure), and calls more its own fault, which ends its instance.
    """
    brackets = text.translate(None, _NO_BRACKETS)
    for _ in range(_MOST_LEVELS):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def _value(raw: msgspec.Raw | None) -> bytes | None:
    if raw is None:
        return None
    text = bytes(raw)
    return None if text == b"null" else text


def _batch(schema: pa.Schema, places: list[int], columns: dict[str, list[bytes | None]]) -> pa.RecordBatch:
    arrays = [pa.array(places, pa.int64())]
    arrays += [pa.array(values, pa.binary()).cast(pa.string()) for values in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


_objects: Final = msgspec.json.Decoder(Fields)
_tuples: Final = msgspec.json.Decoder(list[msgspec.Raw])


def _object(text: bytes) -> Fields:
    return _objects.decode(text)


def _tuple_of(names: list[str]) -> Callable[[bytes], Fields]:
    def decode(text: bytes) -> Fields:
        values = _tuples.decode(text)
        if len(values) != len(names):
            raise msgspec.ValidationError(f"{len(values)} values for {len(names)} columns")
        return dict(zip(names, values, strict=True))

    return decode


def _decoded(
    rows: Iterator[Row], decode: Callable[[bytes], Fields], on_bad: OnBad
) -> Iterator[tuple[int, Fields, bytes]]:
    for place, text in rows:
        try:
            yield place, decode(text), text
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            on_bad(BadRow.whole(place, _reason(error), _shown(text)))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return str(error).replace("Expected `object`", "expected an object").replace("Expected `array`", "expected an array")
    if isinstance(error, RecursionError):
        return "nested too deeply: some 900 levels are read"
    return f"no JSON: {error}"


def _shown(text: bytes) -> Any:
    return text[:_SHOWN_CHARS].decode(errors="replace")


def lines_of(path: Path, on_bad: OnBad) -> Iterator[Row]:
    """The lines with their numbers, blank ones left out. Raises BodyInvalid for a line that is too long."""
    number, rest = 0, b""
    with path.open("rb", buffering=0) as file:
        is_first = True
        while piece := file.read(READ_BYTES):
            if is_first:
                piece, is_first = piece.removeprefix(_BOM), False
            *lines, rest = (rest + piece).split(b"\n")
            for number, line in enumerate(lines, number + 1):  # noqa: B020  Why: the count goes on from piece to piece
                yield from _utf8(number, line, on_bad)
            if len(rest) > MAX_ROW_BYTES:
                raise BodyInvalid(f"Line {number + 1} is longer than {MAX_ROW_BYTES:,} bytes.", line=number + 1)
        yield from _utf8(number + 1, rest, on_bad)


def _utf8(number: int, line: bytes, on_bad: OnBad) -> Iterator[Row]:
    if line.isascii():
        if line.strip():
            yield number, line
        return
    try:
        line.decode()
    except UnicodeDecodeError:
        on_bad(BadRow.whole(number, "not valid UTF-8", _shown(line)))
    else:
        yield number, line

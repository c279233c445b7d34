"""A JSON document of any size cut into its rows, without ever holding more than one of them.

An array of objects; or an object with `columns` and `rows`, as queries are answered; or one object, which is one row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from pondkeeper.engine.intake.sources.rows import MAX_ROW_BYTES, check_names
from pondkeeper.errors import BodyInvalid

_READ_BYTES: Final = 1024 * 1024
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|["\[\]{},]', re.DOTALL)
_ROWS: Final = re.compile(rb"\s*:\s*\[")
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"


class _Text:
    """The part of the document that is looked at, refilled from the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.data = b""
        self.is_whole = False

    def more(self, keep_from: int = 0) -> bool:
        """Drop what is before `keep_from` and read on; False at the end."""
        if len(self.data) - keep_from > MAX_ROW_BYTES:
            raise BodyInvalid(f"A row of the document is longer than {MAX_ROW_BYTES:,} bytes.")
        piece = self._file.read(_READ_BYTES)
        self.data = self.data[keep_from:] + piece
        self.is_whole = not piece
        return bool(piece)


class Document:
    """One JSON document in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def column_names(self) -> list[str] | None:
        """The names in `columns`, where the document has `columns` and `rows`."""
        with self._path.open("rb", buffering=0) as file:
            text = _Text(file)
            head = _head(text)
        return None if head is None or head == b"[" else _names(head)

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Each row's text with its number. Raises BodyInvalid where the document is none, or ends too early."""
        with self._path.open("rb", buffering=0) as file:
            text = _Text(file)
            head = _head(text)
            if head is None:
                yield 1, _whole(text)
                return
            text.data = text.data[len(head) :]
            number = 0
            for number, row in enumerate(_elements(text), 1):
                yield number, row
            _check_end(head, text, number)


def _head(text: _Text) -> bytes | None:
    """All before the first row, `[` included; None where the document is one object."""
    while not text.data.strip(_SPACE) and text.more():
        continue
    text.data = text.data.removeprefix(_BOM).lstrip(_SPACE)
    if text.data.startswith(b"["):
        return b"["
    if not text.data.startswith(b"{"):
        raise BodyInvalid("The body is no JSON array of objects, and no object with `columns` and `rows`.")
    while True:
        found, is_complete = _rows_begin(text.data)
        if found or is_complete:
            return text.data[:found] if found else None
        if not text.more():
            return None


def _rows_begin(data: bytes) -> tuple[int, bool]:
    """Where the rows begin in an object, 0 when they do not; and whether all of the object was seen."""
    depth = 0
    for token in _TOKEN.finditer(data):
        word = token[0]
        if word == b'"':
            return 0, False
        if word == b'"rows"' and depth == 1 and (begin := _ROWS.match(data, token.end())):
            return begin.end(), True
        depth += (word in (b"{", b"[")) - (word in (b"}", b"]"))
        if depth == 0:
            return 0, True
    return 0, False


def _names(head: bytes) -> list[str]:
    try:
        columns = msgspec.json.decode(head + b"]}").get("columns")
        names = [_name(column) for column in columns]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, KeyError, AttributeError):
        raise BodyInvalid("The body has `rows`, and before them no list of `columns`.") from None
    check_names(names)
    return names


def _name(column: Any) -> str:
    return str(column["name"]) if isinstance(column, dict) else str(column)


def _whole(text: _Text) -> bytes:
    while text.more():
        continue
    return text.data


def _elements(text: _Text) -> Iterator[bytes]:
    """The elements up to the end of the array; afterwards `text.data` begins behind its bracket."""
    begin = position = depth = 0
    while True:
        for token in _TOKEN.finditer(text.data, position):
            word = token[0]
            if word == b'"':
                position = token.start()
                break
            position = token.end()
            if depth == 0 and word in (b",", b"]"):
                element = text.data[begin : token.start()].strip(_SPACE)
                if element or word == b",":
                    yield element
                begin = token.end()
                if word == b"]":
                    text.data = text.data[begin:]
                    return
            depth += (word in (b"{", b"[")) - (word in (b"}", b"]"))
        if not text.more(begin):
            return
        position, begin = position - begin, 0


def _check_end(head: bytes, text: _Text, rows: int) -> None:
    """What follows the rows must end the document."""
    if not text.is_whole:
        _whole(text)
        tail = text.data
        try:
            msgspec.json.decode(head + b"]" + tail)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return
    raise BodyInvalid(f"The document is no JSON: it breaks off, or goes on where it should end, after row {rows}.", row=rows)

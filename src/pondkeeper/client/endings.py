"""How an answer says at its end that a limit has cut it: each format in its own way, read without an engine."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

TAIL_BYTES: Final = 1024 * 1024
_LIMIT: Final = b"pondkeeper.limit"

_JSON_TAIL_BYTES: Final = 400
# Anchored at the end, so that no value of a row can look like it.
_JSON: Final = re.compile(
    rb'"truncated":\s*true,\s*"limit":\s*"(\w+)",\s*"version":\s*\d+,\s*"elapsed_ms":[^"]*\}\s*\Z'
)
# Two entries of the footer's metadata, in Thrift's compact protocol: 0x18, length, text; 0 ends an entry.
_PARQUET: Final = re.compile(
    rb"\x18\x14pondkeeper\.truncated\x18\x04true\x00\x18\x10pondkeeper\.limit\x18[\x00-\x7f](\w+)\x00"
)

_ARROW_BEGIN: Final = b"\xff\xff\xff\xff"
_ARROW_END: Final = _ARROW_BEGIN + bytes(4)
_BODY_LENGTH_FIELD: Final = 3
_METADATA_FIELD: Final = 4
_MOST_CANDIDATES: Final = 1000


def limit_in(content_type: str, tail: bytes) -> str | None:
    """The limit that cut the answer that ends with these bytes; None when nothing says that it was cut."""
    if content_type.startswith("application/json"):
        return _found(_JSON.search(tail[-_JSON_TAIL_BYTES:]))
    if content_type.endswith(".parquet"):
        return _found(next(reversed(list(_PARQUET.finditer(tail))), None))
    return _arrow_limit(tail) if content_type.endswith(".arrow.stream") else None


def _found(match: re.Match[bytes] | None) -> str | None:
    return match[1].decode() if match else None


def _arrow_limit(tail: bytes) -> str | None:
    """The limit in the metadata of the last message before the end of the stream."""
    if not tail.endswith(_ARROW_END):
        return None
    end = len(tail) - len(_ARROW_END)
    begin = end
    for _ in range(_MOST_CANDIDATES):
        begin = tail.rfind(_ARROW_BEGIN, 0, begin)
        if begin < 0:
            return None
        try:
            entries = dict(_metadata(tail, begin, end))
        except (struct.error, ValueError):
            continue
        return _found(re.fullmatch(rb"(\w+)", entries.get(_LIMIT, b"")))
    return None


def _metadata(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """The custom metadata of the message from `begin` to `end`; ValueError when there is no such message.

    A message: 0xFFFFFFFF, the length of its description, the description (a flatbuffer), the body.
    """
    (length,) = struct.unpack_from("<I", data, begin + 4)
    root = begin + 8
    table = root + _u32(data, root)
    body_length = _field(data, table, _BODY_LENGTH_FIELD)
    body_bytes = struct.unpack_from("<q", data, body_length)[0] if body_length else 0
    if root + length + body_bytes != end:
        raise ValueError("another message, or none")
    vector = _field(data, table, _METADATA_FIELD)
    if vector:
        at = vector + _u32(data, vector)
        for number in range(_u32(data, at)):
            entry = at + 4 + 4 * number
            entry += _u32(data, entry)
            yield _text(data, _field(data, entry, 0)), _text(data, _field(data, entry, 1))


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 when it has none."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    if layout < 0 or struct.unpack_from("<H", data, layout)[0] <= 4 + 2 * number:
        return 0
    offset = struct.unpack_from("<H", data, layout + 4 + 2 * number)[0]
    return int(table + offset) if offset else 0


def _text(data: bytes, at: int) -> bytes:
    start = at + _u32(data, at)
    return data[start + 4 : start + 4 + _u32(data, start)] if at else b""

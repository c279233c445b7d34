"""The audit on disk: segments of NDJSON, each line holding the SHA-256 of the line before it, across segments too."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

SUFFIX: Final = ".ndjson"
GENESIS: Final = "0" * 64
TAIL_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(r"(\d{8,})\.ndjson\Z")


@dataclass(frozen=True)
class End:
    """The end of a chain: the number and the hash of its last line, and what was torn off behind it."""

    segment: int = 0
    number: int = 0
    hash: str = GENESIS
    is_closed: bool = True
    torn_bytes: int = 0


def hash_of(line: bytes) -> str:
    """The hash by which the next line names this one (without its line end)."""
    return hashlib.sha256(line).hexdigest()


def moment(seconds: float) -> str:
    """A time as the audit writes it: ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def segment_path(folder: Path, number: int) -> Path:
    """Where the segment of that number lies."""
    return folder / f"{number:08d}{SUFFIX}"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments there are, by number."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted((int(found[1]), folder / name) for name in names if (found := _NAME.match(name)))


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a segment without their ends; one that is not finished (torn, or just being written) is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def torn_bytes(path: Path) -> int:
    """How many bytes follow the last finished line."""
    return last_line(path)[1]


def end_of(folder: Path) -> End:
    """Where the chain ends, read backwards: it may be gigabytes long."""
    torn = 0
    for number, path in reversed(segments(folder)):
        line, torn_here = last_line(path)
        torn += torn_here
        if line is not None:
            last = decoded(line)
            return End(number, int(last.get("n", 0)), hash_of(line), last.get("kind") == "end", torn)
        if torn_here == 0:
            continue  # an empty file: the keeper died between making it and its first line
    newest = segments(folder)[-1:]
    return End(segment=newest[0][0] if newest else 0, torn_bytes=torn, is_closed=not torn)


def last_line(path: Path) -> tuple[bytes | None, int]:
    """The last finished line and the number of bytes behind it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        reach = TAIL_BYTES
        while True:
            start = max(0, size - reach)
            file.seek(start)
            tail = file.read(size - start)
            end = tail.rfind(b"\n")
            begin = tail.rfind(b"\n", 0, end) if end >= 0 else -1
            if begin >= 0 or start == 0:
                return (tail[begin + 1 : end] if end >= 0 else None), len(tail) - end - 1
            reach *= 4


def decoded(line: bytes) -> dict[str, Any]:
    """The record of a line; an empty one when it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}

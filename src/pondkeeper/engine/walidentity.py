"""Which file a WAL belongs to, from its first entry: DuckDB writes there the file's id and the checkpoint it follows.

DuckDB refuses to open a file of storage version 67 or later with a WAL of another one. Files of earlier versions have no id,
and whatever lies beside them is applied without a word (both lines). Imports no duckdb.

Layout: field 100 the kind of entry (98), 101 the version of the WAL, 102 the id (16 numbers), 103 the checkpoint's
iteration; a field is its number (2 bytes) and its value (numbers of 7 bits a byte), 0xffff ends the entry.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from pondkeeper.engine.fileformat import Headers

FIRST_WITH_IDENTITY: Final = 67
_HEAD_BYTES: Final = 128
_TAIL_BYTES: Final = 64
_BEGINNING: Final = bytes.fromhex("6400626500026600")
_ITERATION: Final = bytes.fromhex("6700")
_CHECKPOINTED: Final = bytes.fromhex("640063")
_ID_BYTES: Final = 16


class Belonging(Enum):
    """What a WAL is to the file beside it. UNKNOWN: files of that storage version do not say."""

    OWN = "own"
    FOLDED = "folded"
    OLDER = "older"
    NEWER = "newer"
    ANOTHER = "another"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class WalHead:
    """The id of the file that a WAL was written for, and the number of the checkpoint that it follows."""

    identity: bytes
    iteration: int


def read_head(path: Path) -> WalHead | None:
    """The first entry of the WAL; None where it says nothing of its file."""
    with path.open("rb") as file:
        return parse_head(file.read(_HEAD_BYTES))


def parse_head(data: bytes) -> WalHead | None:
    """The head in the first bytes of a WAL."""
    if not data.startswith(_BEGINNING):
        return None
    try:
        count, at = _number(data, len(_BEGINNING))
        if count != _ID_BYTES:
            return None
        identity = bytearray()
        for _ in range(count):
            value, at = _number(data, at)
            identity.append(value)
        if data[at : at + len(_ITERATION)] != _ITERATION:
            return None
        iteration, _ = _number(data, at + len(_ITERATION))
    except (IndexError, ValueError):  # cut off, or no such entry
        return None
    return WalHead(bytes(identity), iteration)


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def belonging(headers: Headers, wal: Path) -> Belonging:
    """What the WAL is to the file of these headers. Raises FileNotFoundError where there is none."""
    head = read_head(wal)
    if head is None or headers.storage_version < FIRST_WITH_IDENTITY:
        return Belonging.UNKNOWN
    if head.identity != headers.identity:
        return Belonging.ANOTHER
    iteration = headers.active.iteration
    if head.iteration == iteration:
        return Belonging.OWN
    # Why: a crash between the end of a checkpoint and the removal of its WAL leaves this, and DuckDB knows it by that mark.
    if head.iteration == iteration - 1 and _ends_with_checkpoint(wal):
        return Belonging.FOLDED
    return Belonging.OLDER if head.iteration < iteration else Belonging.NEWER


def _ends_with_checkpoint(wal: Path) -> bool:
    with wal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return _CHECKPOINTED in file.read()

"""What pgoutput says, version 1 of its protocol: bytes to messages. Values stay the text that PostgreSQL printed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pondkeeper.errors import PondkeeperError

_EPOCH_S: Final = 946_684_800  # 2000-01-01, where PostgreSQL's clock begins
_HEADER: Final = struct.Struct(">QQq")
_KEEPALIVE: Final = struct.Struct(">QqB")
_BEGIN: Final = struct.Struct(">QqI")
_COMMIT: Final = struct.Struct(">BQQq")
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">I")
_COLUMN: Final = struct.Struct(">Ii")


class Unchanged:
    """The value of a column that lies outside its row (TOAST) and was not touched: PostgreSQL does not send it."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
Value = str | None | Unchanged
Values = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins; `final_lsn` is where its commit stands in the log."""

    final_lsn: int
    committed_at: float


@dataclass(frozen=True, slots=True)
class Commit:
    """It is whole; whoever has it goes on from `end_lsn`."""

    end_lsn: int
    committed_at: float


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column as the log knows it."""

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when the changes that follow were made. `identity`: d(efault), i(ndex), f(ull), n(othing)."""

    id: int
    schema: str
    table: str
    identity: str
    columns: tuple[RelationColumn, ...]

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class Insert:
    relation: int
    new: Values


@dataclass(frozen=True, slots=True)
class Update:
    """`old` is there when the key has changed (`is_whole` False: only its key columns count) or the identity is full."""

    relation: int
    old: Values | None
    is_whole: bool
    new: Values


@dataclass(frozen=True, slots=True)
class Delete:
    relation: int
    old: Values
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    relations: tuple[int, ...]


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate


@dataclass(frozen=True, slots=True)
class Logged:
    """A piece of the log: a message, or None for what does not concern rows."""

    message: Message | None


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server has looked through its log up to `position`: every transaction committed before was sent."""

    position: int
    wants_answer: bool


def decode_frame(data: bytes) -> Logged | Keepalive:
    """One frame of the replication stream."""
    kind = data[:1]
    if kind == b"w":
        return Logged(decode(data, 1 + _HEADER.size))
    if kind == b"k":
        position, _, wanted = _KEEPALIVE.unpack_from(data, 1)
        return Keepalive(position, bool(wanted))
    raise PondkeeperError(f"The source sent a frame of an unknown kind: {kind!r}.")


def decode(data: bytes, at: int = 0) -> Message | None:
    """One message of pgoutput. None for what is of no use here: origins, types, messages of applications."""
    kind = data[at : at + 1]
    at += 1
    if kind == b"I":
        [relation] = _INT32.unpack_from(data, at)
        return Insert(relation, _values(data, at + 5)[0])
    if kind == b"U":
        return _update(data, at)
    if kind == b"D":
        [relation] = _INT32.unpack_from(data, at)
        return Delete(relation, _values(data, at + 5)[0], data[at + 4 : at + 5] == b"O")
    if kind == b"B":
        final_lsn, committed_us, _ = _BEGIN.unpack_from(data, at)
        return Begin(final_lsn, _seconds(committed_us))
    if kind == b"C":
        _, _, end_lsn, committed_us = _COMMIT.unpack_from(data, at)
        return Commit(end_lsn, _seconds(committed_us))
    if kind == b"R":
        return _relation(data, at)
    if kind == b"T":
        [count] = _INT32.unpack_from(data, at)
        return Truncate(struct.unpack_from(f">{count}I", data, at + 5))
    if kind in {b"O", b"Y", b"M"}:
        return None
    raise PondkeeperError(f"The source sent a message of an unknown kind: {kind!r}.")


def _update(data: bytes, at: int) -> Update:
    [relation] = _INT32.unpack_from(data, at)
    at += 4
    before = data[at : at + 1]
    old: Values | None = None
    if before != b"N":
        old, at = _values(data, at + 1)
    return Update(relation, old, before == b"O", _values(data, at + 1)[0])


def _values(data: bytes, at: int) -> tuple[Values, int]:
    [count] = _INT16.unpack_from(data, at)
    at += 2
    values: list[Value] = []
    for _ in range(count):
        kind = data[at]
        at += 1
        if kind == 0x74:  # t(ext)
            [length] = _INT32.unpack_from(data, at)
            at += 4
            values.append(data[at : at + length].decode())
            at += length
        elif kind == 0x6E:  # n(ull)
            values.append(None)
        elif kind == 0x75:  # u(nchanged)
            values.append(UNCHANGED)
        else:
            raise PondkeeperError(f"The source sent a value of an unknown kind: {chr(kind)!r}.")
    return tuple(values), at


def _relation(data: bytes, at: int) -> Relation:
    [relation] = _INT32.unpack_from(data, at)
    schema, at = _text(data, at + 4)
    table, at = _text(data, at)
    identity = chr(data[at])
    [count] = _INT16.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        is_key = bool(data[at] & 1)
        name, at = _text(data, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        columns.append(RelationColumn(name, type_oid, modifier, is_key))
    return Relation(relation, schema or "pg_catalog", table, identity, tuple(columns))


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1


def _seconds(microseconds: int) -> float:
    return _EPOCH_S + microseconds / 1e6


def encode_status(position: int, now: float, *, wants_answer: bool = False) -> bytes:
    """The answer to the source: everything before `position` is safe here and never needed again."""
    micros = int((now - _EPOCH_S) * 1e6)
    return b"r" + struct.pack(">QQQqB", position, position, position, micros, wants_answer)

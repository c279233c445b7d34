"""The bytes of a spool's log: a segment is a head and then groups; a group is what one fsync made durable.

A group is written only after the one before it is on disk. So a group that is not whole is the torn tail of a crash if
nothing follows it, and nobody was promised anything of it; if another group follows, it was on disk once, and what is
missing of it is damage.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

MAGIC: Final = b"PKspool1"
_SEGMENT: Final = struct.Struct("<8s16sQI")  # magic, id, first place, crc
# id, number, first place, entries, those with a key, those with a file, bytes, written at, crc of them, crc of this
_GROUP: Final = struct.Struct("<16sQQIIIQdII")
_ENTRY: Final = struct.Struct("<II")  # bytes of the header, bytes of the body
_CRC_BYTES: Final = 4
SEGMENT_HEAD_BYTES: Final = _SEGMENT.size
GROUP_HEAD_BYTES: Final = _GROUP.size


class Header(msgspec.Struct, omit_defaults=True, frozen=True):
    """What an entry says of its body: where the rows belong, how, and who sent them.

    `file` names a file of its own for a body that is too large for the log, of `size_bytes` and with `body_digest`.
    `key` is the client's Idempotency-Key, `digest` what tells it from another ingest with the same key.
    """

    table: str
    format: str
    digest: str
    accepted_at: float
    schema: str = "main"
    mode: str = "append"
    keys: tuple[str, ...] = ()
    create: bool = False
    evolve: bool = False
    on_error: str = "abort"
    priority: str = "normal"
    key_id: str | None = None
    client: str | None = None
    key: str | None = None
    file: str | None = None
    size_bytes: int = 0
    body_digest: str | None = None
    delimiter: str = ","
    has_header: bool = True

    @property
    def name(self) -> str:
        """The table as people write it."""
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted ingest: its place in the order of the database, what it says of itself, and its body if it is small."""

    place: int
    header: Header
    body: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """A whole group, and where it lies in its segment."""

    offset: int
    size_bytes: int
    first_place: int
    count: int
    keyed: int
    filed: int
    written_at: float

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes

    @property
    def next_place(self) -> int:
        return self.first_place + self.count


@dataclass(frozen=True, slots=True)
class Damage:
    """Groups that were on disk once and are not whole any more, and how many entries are missing with them."""

    offset: int
    groups: int
    entries: int


@dataclass
class Scan:
    """What a segment holds. `end` is where its last whole group ends: what follows is the torn tail of a crash."""

    segment_id: bytes
    first_place: int
    size_bytes: int
    groups: list[Group] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    end: int = SEGMENT_HEAD_BYTES

    @property
    def torn_bytes(self) -> int:
        return self.size_bytes - self.end

    @property
    def next_place(self) -> int:
        return self.groups[-1].next_place if self.groups else self.first_place


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Header)


def new_segment_head(first_place: int) -> tuple[bytes, bytes]:
    """The id of a new segment, and the bytes that it begins with."""
    # Why random: a body that looks like a group cannot be taken for one, since nobody outside knows the id.
    segment_id = os.urandom(16)
    head = _SEGMENT.pack(MAGIC, segment_id, first_place, 0)[:-_CRC_BYTES]
    return segment_id, head + zlib.crc32(head).to_bytes(_CRC_BYTES, "little")


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that has no place yet, as a group will hold it."""

    data: bytes
    is_keyed: bool = False
    is_filed: bool = False

    @staticmethod
    def of(header: Header, body: bytes) -> Draft:
        said = _encoder.encode(header)
        data = b"".join((_ENTRY.pack(len(said), len(body)), said, body))
        return Draft(data, header.key is not None, header.file is not None)


def encode_group(segment_id: bytes, number: int, first_place: int, drafts: Sequence[Draft]) -> tuple[bytes, Group]:
    """A group of entries that begin at this place, and what is to be known of it; its offset is not known here."""
    payload = b"".join(draft.data for draft in drafts)
    keyed, filed = sum(draft.is_keyed for draft in drafts), sum(draft.is_filed for draft in drafts)
    now = time.time()
    head = _GROUP.pack(
        segment_id, number, first_place, len(drafts), keyed, filed, len(payload), now, zlib.crc32(payload), 0
    )[:-_CRC_BYTES]
    data = b"".join((head, zlib.crc32(head).to_bytes(_CRC_BYTES, "little"), payload))
    return data, Group(0, len(data), first_place, len(drafts), keyed, filed, now)


def scan(data: bytes) -> Scan | None:
    """Everything that the bytes of a segment hold; None when not even its head is whole."""
    if len(data) < SEGMENT_HEAD_BYTES:
        return None
    magic, segment_id, first_place, crc = _SEGMENT.unpack_from(data)
    if magic != MAGIC or crc != zlib.crc32(data[: SEGMENT_HEAD_BYTES - _CRC_BYTES]):
        return None
    found = Scan(segment_id, first_place, len(data))
    number = 0
    for next_number, group in numbered_groups(data, segment_id, SEGMENT_HEAD_BYTES):
        if next_number > number:
            entries = group.first_place - found.next_place
            found.damage.append(Damage(found.end, next_number - number, entries))
        found.groups.append(group)
        found.end, number = group.end, next_number + 1
    return found


def numbered_groups(data: bytes, segment_id: bytes, offset: int = 0) -> Iterator[tuple[int, Group]]:
    """The whole groups of a segment's bytes from `offset` on, each with its number; what is not whole is left out."""
    while (offset := data.find(segment_id, offset)) >= 0:
        whole = _group_at(data, offset)
        if whole is None:
            offset += 1
        else:
            yield whole
            offset = whole[1].end


def _group_at(data: bytes, offset: int) -> tuple[int, Group] | None:
    if offset + GROUP_HEAD_BYTES > len(data):
        return None
    _, number, first_place, count, keyed, filed, size, written_at, crc, own_crc = _GROUP.unpack_from(data, offset)
    begin = offset + GROUP_HEAD_BYTES
    if own_crc != zlib.crc32(data[offset : begin - _CRC_BYTES]) or begin + size > len(data):
        return None
    if crc != zlib.crc32(memoryview(data)[begin : begin + size]):
        return None
    return number, Group(offset, GROUP_HEAD_BYTES + size, first_place, count, keyed, filed, written_at)


def entries_of(data: bytes, group: Group) -> Iterator[Entry]:
    """The entries of a whole group of these bytes, in order."""
    offset = group.offset + GROUP_HEAD_BYTES
    for place in range(group.first_place, group.next_place):
        header_bytes, body_bytes = _ENTRY.unpack_from(data, offset)
        middle = offset + _ENTRY.size + header_bytes
        header = _decoder.decode(memoryview(data)[offset + _ENTRY.size : middle])
        offset = middle + body_bytes
        yield Entry(place, header, bytes(data[middle:offset]))

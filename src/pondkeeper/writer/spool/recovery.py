"""What a spool's folder holds after any end of the keeper. Doing it again, also after a death in its midst, finds the same."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pondkeeper.files.durable import sync_folder
from pondkeeper.writer.spool.log import SEGMENT_HEAD_BYTES, Damage, Entry, Group, Scan, entries_of, scan
from pondkeeper.writer.spool.segments import DAMAGED_SUFFIX, SUFFIX, Segment, set_aside

_log = structlog.get_logger(__name__)


@dataclass
class Found:
    """Segments in their order; how many entries wait; those with a client's key or a file of their own."""

    next_place: int
    segments: list[Segment] = field(default_factory=list)
    waiting: int = 0
    keyed: list[Entry] = field(default_factory=list)
    filed: list[Entry] = field(default_factory=list)
    torn_bytes: int = 0


def recover(folder: Path, cursor: int, keyed_before: int) -> Found:
    """The segments of the folder: entries from `cursor` on wait; keys at places from `keyed_before` on are wanted.

    The torn tail of the last one is cut off: nobody was promised anything of it. Whatever else is not whole is damage.
    """
    found = Found(next_place=cursor)
    paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    for path in paths:
        data = path.read_bytes()
        scanned = scan(data)
        if scanned is None:
            _without_head(path, found, len(data), is_last=path == paths[-1])
        else:
            _take(path, scanned, found, is_last=path == paths[-1])
            _note(data, scanned.groups, found, cursor, keyed_before)
    if paths:
        sync_folder(folder)
    return found


def damaged_files(folder: Path) -> list[Path]:
    """The segments that were set aside because of damage."""
    return sorted(path for path in folder.iterdir() if path.suffix == DAMAGED_SUFFIX)


def _without_head(path: Path, found: Found, size_bytes: int, *, is_last: bool) -> None:
    """A file that was being made when the power went; or its head is damaged, and what it held is out of reach."""
    if is_last and size_bytes <= SEGMENT_HEAD_BYTES:
        found.torn_bytes += size_bytes
        path.unlink()
        return
    _log.error("a segment of the spool is damaged and was set aside: its entries are lost", segment=path.name)
    set_aside(path)


def _take(path: Path, scanned: Scan, found: Found, *, is_last: bool) -> None:
    damage = scanned.damage
    if scanned.torn_bytes and is_last:
        found.torn_bytes += scanned.torn_bytes
        _truncate(path, scanned.end)
    elif scanned.torn_bytes:
        damage = [*damage, Damage(scanned.end, 1, 0)]  # Why: the next segment was begun when all of this was durable.
    if scanned.groups:
        segment = Segment(path, scanned.segment_id, scanned.next_place, scanned.end, is_damaged=bool(damage))
        for group in scanned.groups:
            segment.take(group)
        found.segments.append(segment)
        found.next_place = max(found.next_place, scanned.next_place)
    elif damage:
        set_aside(path)
    else:
        path.unlink()
    for each in damage:
        _log.error(
            "the spool is damaged: accepted entries are lost",
            segment=path.name,
            offset=each.offset,
            groups=each.groups,
            entries=each.entries or "unknown",
        )


def _note(data: bytes, groups: list[Group], found: Found, cursor: int, keyed_before: int) -> None:
    for group in groups:
        found.waiting += max(0, group.next_place - max(group.first_place, cursor))
        wants_keys = group.keyed and group.next_place > keyed_before
        wants_files = group.filed and group.next_place > cursor
        if wants_keys or wants_files:
            for entry in entries_of(data, group):
                if entry.header.key is not None and entry.place >= keyed_before:
                    found.keyed.append(entry)
                if entry.header.file is not None and entry.place >= cursor:
                    found.filed.append(entry)


def _truncate(path: Path, size_bytes: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

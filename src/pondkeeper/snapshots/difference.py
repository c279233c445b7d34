"""Bring a target up to the source: copy what may have changed, compare where that is not known, or copy everything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from pondkeeper.engine.fileformat import HEADERS_BYTES, block_offset
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.manifest import Method
from pondkeeper.snapshots.source import Observation, Source
from pondkeeper.snapshots.target import Target, disk_errors

_PIECE_BYTES = 8 << 20


@dataclass
class Copied:
    """What a copy did."""

    method: Method
    blocks: int = 0
    size_bytes: int = 0


def bring_up(source: Source, target: Target, now: Observation, cancelling: Cancelling) -> Copied:
    """Make every used block of `target`, its headers and its length those of `now`.

    Correct if no checkpoint ended meanwhile, which the caller asks afterwards. Does not flush.
    """
    if now.use is None:
        return _copy_all(source, target, cancelling)
    if not target.contents.certain:
        copied = _compare(source, target, now, cancelling)
    else:
        copied = Copied("difference" if target.recycled or len(target.contents.stale) < now.block_count else "full")
        _copy(source, target, now, target.contents.to_copy(now.use), copied, cancelling)
    target.write(now.headers.raw, 0)
    with disk_errors():
        os.ftruncate(target.descriptor, now.headers.active.size_bytes)
    return copied


def _copy(
    source: Source, target: Target, now: Observation, blocks: Iterable[int], copied: Copied, cancelling: Cancelling
) -> None:
    """Copy blocks, each with its checksum verified; what is copied is no longer stale, whatever comes after."""
    size = now.block_size_bytes
    for block in blocks:
        cancelling.check()
        target.write(source.read_block(block, size), block_offset(block, size))
        target.contents.stale.discard(block)
        copied.blocks += 1
        copied.size_bytes += size


def _compare(source: Source, target: Target, now: Observation, cancelling: Cancelling) -> Copied:
    """Compare every used block byte by byte.

    Trap: equal checksums do not suffice. They ignore the order of a block's words: two values swapped stay unseen.
    """
    copied = Copied("compare")
    size = now.block_size_bytes
    for block in now.used:
        cancelling.check()
        if source.peek_block(block, size) != target.read(size, block_offset(block, size)):
            _copy(source, target, now, [block], copied, cancelling)
    return copied


def _copy_all(source: Source, target: Target, cancelling: Cancelling) -> Copied:
    """Copy the whole file as it is, assuming nothing about its format."""
    copied = Copied("full")
    length = source.size_bytes
    for offset in range(0, length, _PIECE_BYTES):
        cancelling.check()
        target.write(source.read_bytes(min(_PIECE_BYTES, length - offset), offset), offset)
    with disk_errors():
        os.ftruncate(target.descriptor, length)
    copied.size_bytes = max(length - HEADERS_BYTES, 0)
    return copied

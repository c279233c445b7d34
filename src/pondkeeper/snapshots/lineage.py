"""Which blocks may differ between two observations of the source: proved, or not known."""

from __future__ import annotations

from pondkeeper.engine.fileformat import CHECKSUM_BYTES, Headers
from pondkeeper.snapshots.source import Observation

_STRIDE = 512 * CHECKSUM_BYTES


def written_between(before: Observation | None, now: Observation) -> set[int] | None:
    """The used blocks that may have been written since `before`; None when that cannot be proved.

    Proved from DuckDB's own rule for surviving a crash: between two checkpoints it writes only into blocks that the
    earlier one lists as free, into new blocks, and into metadata blocks. So it takes exactly one checkpoint between
    the two (the headers show it). As a second net every other used block must still have its checksum.
    """
    if before is None or before.use is None or now.use is None or not _follows(before, now):
        return None
    written = {block for block in now.use.written_since(before.use) if not _same_metadata(before, now, block)}
    for block in _changed_checksums(before.checksums, now.checksums):
        if block not in written and now.use.is_used(block):
            return None
    return written


def _follows(before: Observation, now: Observation) -> bool:
    """Whether `now` is the same file, with no checkpoint in between or one."""
    if before.inode != now.inode or before.headers.identity != now.headers.identity:
        return False
    return before.headers.raw == now.headers.raw or _is_next(before.headers, now.headers)


def _is_next(before: Headers, now: Headers) -> bool:
    return now.previous.raw == before.active.raw and now.active.iteration == before.active.iteration + 1


def _same_metadata(before: Observation, now: Observation, block: int) -> bool:
    """Compared as bytes: a checksum does not notice when equal parts of a block change places."""
    return block in now.metadata and now.metadata[block] == before.metadata.get(block)


def _changed_checksums(before: bytes, now: bytes) -> list[int]:
    """The blocks, as far as both have them, whose checksums differ."""
    found: list[int] = []
    shorter = min(len(before), len(now))
    for start in range(0, shorter, _STRIDE):
        end = min(start + _STRIDE, shorter)
        if before[start:end] != now[start:end]:
            offsets = range(start, end, CHECKSUM_BYTES)
            found += [at // CHECKSUM_BYTES for at in offsets if before[at : at + 8] != now[at : at + 8]]
    return found

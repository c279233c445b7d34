"""The audit as others read it: whether its chain is whole, and its records by what they tell of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pondkeeper.access.segments import GENESIS, decoded, hash_of, segments, torn_bytes, whole_lines
from pondkeeper.errors import AuditBroken

POLL_S: Final = 0.2


@dataclass
class Verdict:
    """A chain that is whole. `head` is the hash of its last line: kept elsewhere, it proves all that came before it."""

    segments: int = 0
    records: int = 0
    first_number: int = 0
    last_number: int = 0
    head: str = GENESIS
    unclean_ends: int = 0
    missing_records: int = 0
    removed_segments: int = 0
    unfinished_bytes: int = 0
    has_expected: bool | None = None

    def to_wire(self) -> dict[str, Any]:
        """The verdict for JSON."""
        return {"ok": True, **asdict(self)}


class _Check:
    """Walks along the chain and raises AuditBroken at the first place that is not as it was written."""

    def __init__(self, expected: str | None) -> None:
        self.verdict = Verdict(has_expected=None if expected is None else False)
        self._expected = expected
        self._last: str | None = None
        self._first_before = GENESIS
        self._first_segment = 0
        self._removed: dict[int, str | None] = {}
        self._torn: list[int] = []
        self._explained_torn_bytes = 0

    def segment(self, number: int, path: Path) -> None:
        lines = 0
        for lines, line in enumerate(whole_lines(path), start=1):
            self._line(number, lines, line)
        self.verdict.segments += 1
        self._torn.append(torn_bytes(path))

    def _line(self, segment: int, place: int, line: bytes) -> None:
        record = decoded(line)
        kind, number, before = record.get("kind"), record.get("n"), record.get("prev")
        if not isinstance(number, int) or not isinstance(before, str):
            raise self._broken(segment, place, "it is no record")
        if (place == 1) != (kind == "head"):
            raise self._broken(segment, place, "a segment has one head, and it is its first line")
        if kind == "head":
            self._head(segment, place, record)
        if self._last is None:
            self.verdict.first_number, self._first_before, self._first_segment = number, before, segment
        elif before != self._last:
            raise self._broken(segment, place, "the line before it was changed, removed or added")
        elif number != self.verdict.last_number + 1:
            raise self._broken(segment, place, f"its number is {number} after {self.verdict.last_number}")
        self._last = hash_of(line)
        self._count(record)

    def _head(self, segment: int, place: int, record: dict[str, Any]) -> None:
        if record.get("segment") != segment:
            raise self._broken(segment, place, f"it is the head of segment {record.get('segment')}")
        self.verdict.unclean_ends += record.get("after") == "cut"
        if self.verdict.segments:  # Else it tells of segments that retention has removed.
            self._explained_torn_bytes += int(record.get("torn_bytes") or 0)

    def _count(self, record: dict[str, Any]) -> None:
        verdict = self.verdict
        verdict.last_number = int(record["n"])
        verdict.head = str(self._last)
        verdict.records += record.get("kind") == "request"
        verdict.missing_records += int(record.get("records") or 0) if record.get("kind") == "missing" else 0
        if record.get("kind") == "removed":
            self._removed[int(record.get("segment") or 0)] = record.get("last")
            verdict.removed_segments += 1
        if self._expected is not None and verdict.head == self._expected:
            verdict.has_expected = True

    def finish(self) -> Verdict:
        self.verdict.unfinished_bytes = self._torn[-1] if self._torn else 0
        if sum(self._torn[:-1]) > self._explained_torn_bytes:
            raise AuditBroken("Bytes stand behind the last line of a segment that no keeper has left there.")
        if self._first_before != GENESIS and self._first_before not in self._removed.values():
            raise AuditBroken(
                f"The audit begins with segment {self._first_segment}, and no record says that the keeper removed what was before it.",
                segment=self._first_segment,
            )
        if self.verdict.has_expected is False:
            raise AuditBroken("The audit has no line with the hash that was expected: it was cut, or written anew.")
        return self.verdict

    def _broken(self, segment: int, place: int, why: str) -> AuditBroken:
        return AuditBroken(f"The audit is broken at line {place} of segment {segment}: {why}.", segment=segment, line=place)


def verify(folder: Path, expected: str | None = None) -> Verdict:
    """Walk the whole chain; `expected` is the hash of a line that it must have. Raises AuditBroken."""
    check = _Check(expected)
    for number, path in segments(folder):
        try:
            check.segment(number, path)
        except FileNotFoundError:  # Retention took it while we looked; the next head then says so.
            continue
    return check.finish()


@dataclass(frozen=True)
class Filter:
    """Which records are wanted; None means any."""

    since: float | None = None
    key: str | None = None
    database: str | None = None
    outcome: str | None = None

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether the record is wanted: requests only."""
        return (
            record.get("kind") == "request"
            and (self.key is None or self.key in (record.get("key"), record.get("name")))
            and (self.database is None or self.database == record.get("database"))
            and (self.outcome is None or self.outcome == record.get("outcome"))
            and (self.since is None or _seconds(record.get("at")) >= self.since)
        )


def records(folder: Path, wanted: Filter) -> Iterator[dict[str, Any]]:
    """The records that are wanted, the oldest first."""
    for _, path in segments(folder):
        if wanted.since is not None and path.stat().st_mtime < wanted.since:
            continue
        yield from filter(wanted.takes, map(decoded, whole_lines(path)))


def newest(folder: Path, wanted: Filter, most: int) -> list[dict[str, Any]]:
    """The newest of them, the oldest of these first; reads no more segments than it needs."""
    found: list[dict[str, Any]] = []
    for _, path in reversed(segments(folder)):
        here = list(filter(wanted.takes, map(decoded, whole_lines(path))))
        found = here[-(most - len(found)) :] + found if most > len(found) else found
        if len(found) >= most:
            break
    return found


def follow(folder: Path, wanted: Filter) -> Iterator[dict[str, Any]]:
    """What is recorded from now on, as it is written; does not end by itself."""
    places = {path: path.stat().st_size for _, path in segments(folder)}
    while True:
        for _, path in segments(folder):
            lines, places[path] = _lines_from(path, places.get(path, 0))
            yield from filter(wanted.takes, map(decoded, lines))
        time.sleep(POLL_S)


def _lines_from(path: Path, offset: int) -> tuple[list[bytes], int]:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    end = data.rfind(b"\n") + 1
    return data[:end].splitlines(), offset + end


def _seconds(at: Any) -> float:
    try:
        return datetime.fromisoformat(str(at)).timestamp()
    except ValueError:
        return 0.0



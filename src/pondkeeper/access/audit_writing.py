"""The chain of the audit's lines as it is written: appending, forcing to disk, going on in a new segment, retention."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from pondkeeper import __version__
from pondkeeper.access.segments import End, end_of, hash_of, last_line, moment, segment_path, segments
from pondkeeper.files.durable import PRIVATE_FILE, make_folder, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

LOOK_AT_AGE_EVERY_S: Final = 600.0
_log = structlog.get_logger(__name__)


class Chain:
    """The newest end of the audit. It blocks, and belongs to one thread at a time; OSErrors leave as they are.

    A write that fails leaves no half line behind: what was written of it is cut off before the next attempt.
    """

    def __init__(self, folder: Path, segment_bytes: int, keep_s: float, keep_bytes: int) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._descriptor: int | None = None
        self._end = End()
        self._size_bytes = 0
        self._is_unsynced = False
        self._synced_at = time.monotonic()
        self._looked_at = 0.0

    def encoded(self, record: dict[str, Any]) -> bytes:
        """A record as JSON, still without its number and the hash of the line before."""
        return self._encoder.encode(record)

    # Life

    def begin(self) -> None:
        """Go on where the chain ends, in a new segment."""
        make_folder(self._folder)
        self._end = end_of(self._folder)
        self._open_next("end" if self._end.is_closed else "cut")
        self._retire()

    def end(self) -> None:
        """Say that the keeper ended in order, and let go of the file."""
        if self._descriptor is None:
            return
        try:
            self.append([self.encoded({"kind": "end", "at": moment(time.time())})])
            os.fdatasync(self._descriptor)
        except OSError as error:
            _log.error("the audit was not ended in order", error=str(error))
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # Writing

    def append(self, bodies: list[bytes]) -> None:
        """Write records, in one go. Raises OSError, and then nothing of them counts."""
        if self._descriptor is None:
            self.begin()
        self._append(bodies)
        try:
            if self._size_bytes >= self._segment_bytes:
                self._rotate()
            elif time.monotonic() - self._looked_at > LOOK_AT_AGE_EVERY_S:
                self._retire()
        except OSError as error:  # Why not raised: the records are written; the next ones meet the fault themselves.
            _log.warning("the audit's segments could not be put in order", error=str(error))

    def _append(self, bodies: list[bytes]) -> None:
        number, last = self._end.number, self._end.hash
        lines: list[bytes] = []
        for body in bodies:
            number += 1
            line = b'{"n":%d,%b,"prev":"%b"}' % (number, body[1:-1], last.encode())
            last = hash_of(line)
            lines += (line, b"\n")
        self._write(b"".join(lines))
        self._end = End(self._end.segment, number, last)

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        self._is_unsynced = True
        done = 0
        try:
            while done < len(data):
                done += os.write(self._descriptor, data[done:] if done else data)
        except OSError:
            os.ftruncate(self._descriptor, self._size_bytes)
            raise
        self._size_bytes += len(data)

    def sync_due_in_s(self, every_s: float) -> float | None:
        """When what is written is to be forced to disk; None when there is nothing."""
        return max(0.0, self._synced_at + every_s - time.monotonic()) if self._is_unsynced else None

    def sync(self, every_s: float) -> None:
        """Force to disk what was written, if it is time."""
        if self._descriptor is None:
            self.begin()
        if self._is_unsynced and time.monotonic() - self._synced_at >= every_s:
            assert self._descriptor is not None
            os.fdatasync(self._descriptor)
            self._is_unsynced = False
            self._synced_at = time.monotonic()

    # Segments

    def _rotate(self) -> None:
        assert self._descriptor is not None
        os.fdatasync(self._descriptor)
        self._close()
        self._open_next("size")
        # Why said: whoever keeps the log elsewhere keeps with it what the chain up to here must hash to.
        _log.info("the audit goes on in a new segment", segment=self._end.segment, number=self._end.number, head=self._end.hash)
        self._retire()

    def _open_next(self, after: str) -> None:
        """A new segment, whose first line names the last line of the one before, and why that is the last.

        `after`: `end` (the keeper stopped in order), `cut` (it did not, or could not write), `size`.
        """
        before = self._end
        number = max(before.segment, *(each for each, _ in segments(self._folder)), 0) + 1
        path = segment_path(self._folder, number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, PRIVATE_FILE)
        self._descriptor, self._size_bytes = descriptor, 0
        head = {
            "kind": "head",
            "at": moment(time.time()),
            "segment": number,
            "after_segment": before.segment,
            "keeper": __version__,
            "after": after,
            "torn_bytes": before.torn_bytes,
        }
        self._end = End(number, before.number, before.hash)
        try:
            body = self.encoded(head)
            line = b'{"n":%d,%b,"prev":"%b"}' % (before.number + 1, body[1:-1], before.hash.encode())
            self._write(line + b"\n")
            os.fdatasync(descriptor)
            sync_folder(self._folder)
        except OSError:
            self._close()
            path.unlink(missing_ok=True)
            self._end = before
            raise
        self._end = End(number, before.number + 1, hash_of(line))

    def _retire(self) -> None:
        """Remove the oldest segments that are older, or more, than what is kept; each removal is a record itself."""
        self._looked_at = time.monotonic()
        found = [(number, path, path.stat()) for number, path in segments(self._folder) if number != self._end.segment]
        total_bytes = self._size_bytes + sum(state.st_size for _, _, state in found)
        for number, path, state in found:
            if state.st_mtime > time.time() - self._keep_s and total_bytes <= self._keep_bytes:
                return
            end = _last_hash(path)
            why = "age" if state.st_mtime <= time.time() - self._keep_s else "size"
            record = {"kind": "removed", "at": moment(time.time()), "segment": number, "last": end, "size_bytes": state.st_size, "why": why}
            self._append([self.encoded(record)])
            assert self._descriptor is not None
            os.fdatasync(self._descriptor)
            path.unlink()
            total_bytes -= state.st_size


def _last_hash(path: Path) -> str | None:
    line, _ = last_line(path)
    return None if line is None else hash_of(line)

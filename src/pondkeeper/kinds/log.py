"""The log of a run: whole lines, masked, each with its moment; of what is too much only the end is kept."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from pathlib import Path
from typing import Final

from pondkeeper.files.durable import PRIVATE_FILE
from pondkeeper.kinds.masking import Mask

MAX_LINE_BYTES: Final = 64 * 1024
END_BYTES: Final = 64 * 1024
BETWEEN_REDRAWN_S: Final = 1.0
_LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")


class RunLog:
    """The file `log` of a run, appended to by one attempt after the other. One writer: the supervisor."""

    def __init__(self, file: Path, mask: Mask, max_bytes: int) -> None:
        self._mask = mask
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        self._room_bytes = max(0, max_bytes - os.fstat(self._descriptor).st_size)
        self._pending = b""
        self._redrawn_at = 0.0
        self._end: deque[bytes] = deque()
        self._end_bytes = self._left_out_lines = 0

    def take(self, data: bytes) -> None:
        """What the run has written; a line is logged when it is whole, since half a secret cannot be found."""
        data = self._pending + data
        begin = 0
        for found in _LINE_END.finditer(data):
            if found[0] != b"\r" or self._may_redraw():
                self._write(data[begin : found.start()])
            begin = found.end()
        self._pending = data[begin:]
        while len(self._pending) > MAX_LINE_BYTES:
            self._write(self._pending[:MAX_LINE_BYTES])
            self._pending = self._pending[MAX_LINE_BYTES:]

    def _may_redraw(self) -> bool:
        """Whether a line that will be drawn over (a progress bar) is logged: one in a second is enough."""
        now = time.monotonic()
        if now - self._redrawn_at < BETWEEN_REDRAWN_S:
            return False
        self._redrawn_at = now
        return True

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self._write(text.encode())

    def end_line(self) -> None:
        """Nothing more comes: a last line without its end is logged as it is."""
        if self._pending:
            self._write(self._pending)
            self._pending = b""

    def close(self) -> None:
        """Log what is left, and the end of what was too much."""
        self.end_line()
        if self._left_out_lines:
            left_out = self._left_out_lines - len(self._end)
            self._put(b"".join([_stamped(f"[{left_out} lines are left out here: the log is full]"), *self._end]))
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        if not line.strip():
            return  # Why: a progress bar ends its line by carriage returns, and leaves empty ones behind.
        stamped = _stamped(self._mask.masked(line.decode(errors="replace")))
        if len(stamped) <= self._room_bytes and not self._left_out_lines:
            self._room_bytes -= len(stamped)
            self._put(stamped)
            return
        self._left_out_lines += 1
        self._end.append(stamped)
        self._end_bytes += len(stamped)
        while self._end_bytes > END_BYTES and len(self._end) > 1:
            self._end_bytes -= len(self._end.popleft())

    def _put(self, data: bytes) -> None:
        try:
            os.write(self._descriptor, data)
        except OSError:  # Why: the disk is full; the run goes on without a log rather than end for it.
            self._room_bytes = 0


def _stamped(text: str) -> bytes:
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{moment}.{int(now * 1000) % 1000:03d}Z {text}\n".encode()

"""Bytes from a child cut into frames, however the kernel delivers them."""

from __future__ import annotations

from collections import deque
from typing import Any

from pondkeeper.workers.frames import DATA, HEADER, MAX_MESSAGE_BYTES, MESSAGE, FrameInvalid, decode


class Inbox:
    """Frames that have arrived: whole messages, and DATA in the pieces in which it came."""

    def __init__(self, name: str) -> None:
        self.data_bytes = 0
        self._name = name
        self._frames: deque[dict[str, Any] | bytes] = deque()
        self._partial = bytearray()
        self._data_left = 0

    def pop(self) -> dict[str, Any] | bytes | None:
        """The next frame, or None when there is none yet."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        if isinstance(frame, bytes):
            self.data_bytes -= len(frame)
        return frame

    def feed(self, data: bytes) -> None:
        """Take what has arrived. Raises FrameInvalid for what no child of ours sends."""
        if self._data_left >= len(data) and not self._partial:  # the usual case in the middle of a big answer
            self._data_left -= len(data)
            self._push(data)
            return
        self._partial += data
        position = 0
        while (taken := self._take(position)) > position:
            position = taken
        del self._partial[:position]

    def _take(self, position: int) -> int:
        """Take one frame, or a piece of data, from `position`; where the next begins, or `position` if it must wait."""
        available = len(self._partial) - position
        if self._data_left and available:
            piece = bytes(memoryview(self._partial)[position : position + self._data_left])
            self._data_left -= len(piece)
            self._push(piece)
            return position + len(piece)
        if available < HEADER.size:
            return position
        kind, length = HEADER.unpack_from(self._partial, position)
        start = position + HEADER.size
        if kind == DATA:
            self._data_left = length
            return start
        if kind != MESSAGE or length > MAX_MESSAGE_BYTES:
            raise FrameInvalid(f"{self._name} announced a frame of kind {kind} and {length} bytes")
        if len(self._partial) - start < length:
            return position
        self._frames.append(decode(bytes(memoryview(self._partial)[start : start + length])))
        end: int = start + length
        return end

    def _push(self, piece: bytes) -> None:
        self._frames.append(piece)
        self.data_bytes += len(piece)

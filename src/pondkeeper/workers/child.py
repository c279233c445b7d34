"""The keeper's end of a child process: frames in both directions, interrupt, kill, and the truth about its death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from typing import Any

from pondkeeper.workers.frames import DATA, HEADER, MAX_MESSAGE_BYTES, FrameInvalid, decode, encode
from pondkeeper.workers.interrupts import NUMBER

PAUSE_ABOVE_BYTES = 1024 * 1024


class ChildGone(Exception):
    """The child process has ended; `status` is its exit code, or minus the signal that killed it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"child ended with status {status}")
        self.status = status


class Child(asyncio.Protocol):
    """One child process; its frames are read with `next_frame`, one consumer at a time."""

    def __init__(self, name: str, pid: int, control: socket.socket) -> None:
        self.name = name
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(pid)
        self._control = control
        self._transport: asyncio.Transport | None = None
        self._frames: deque[dict[str, Any] | bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._partial = bytearray()
        self._data_left = 0
        self._buffered_bytes = 0
        self._paused = False
        self._closed = False
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    # What the keeper does with it

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a message to a dead child is lost, which `next_frame` tells."""
        if self._transport is not None and not self._closed:
            self._transport.write(encode(message))

    async def next_frame(self) -> dict[str, Any] | bytes:
        """The next message, or a piece of a DATA frame. Raises ChildGone when the child has ended."""
        while not self._frames:
            if self._closed:
                raise ChildGone(await asyncio.shield(self.exited))
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._pop()

    def frame_ready(self) -> dict[str, Any] | bytes | None:
        """A frame that has arrived already, without waiting."""
        return self._pop() if self._frames else None

    def interrupt(self, number: int) -> None:
        """Ask the engine in the child to stop request `number`; it may be deaf.

        The number keeps an interrupt that arrives late from hitting the next request.
        """
        try:
            self._control.send(NUMBER.pack(number))
        except OSError:  # the child is dead or drowning in interrupts: the kill ladder goes on in either case
            pass

    def kill(self) -> None:
        """SIGKILL: the kernel ends it in milliseconds, whatever the engine does."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Close our end: the child finishes what it does and exits by itself."""
        if self._transport is not None:
            self._transport.close()
        self._control.close()

    def rss_bytes(self) -> int:
        """Resident memory of the child; 0 once it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (FileNotFoundError, ProcessLookupError):
            return 0

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._data_left >= len(data) and not self._partial:  # the usual case in the middle of a big answer
            self._data_left -= len(data)
            self._push(data)
        else:
            self._partial += data
            self._split()
        self._wake()
        if self._buffered_bytes > PAUSE_ABOVE_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._wake()

    def _split(self) -> None:
        """Cut what has arrived into frames; the head of an unfinished message stays in `_partial`."""
        view, position = self._partial, 0
        while position < len(view):
            if self._data_left:
                piece = bytes(view[position : position + self._data_left])
                self._data_left -= len(piece)
                position += len(piece)
                self._push(piece)
                continue
            if len(view) - position < HEADER.size:
                break
            kind, length = HEADER.unpack_from(view, position)
            if kind == DATA:
                self._data_left = length
                position += HEADER.size
                continue
            if length > MAX_MESSAGE_BYTES:
                raise FrameInvalid(f"{self.name} announced a message of {length} bytes")
            if len(view) - position - HEADER.size < length:
                break
            start = position + HEADER.size
            position = start + length
            self._frames.append(decode(bytes(view[start:position])))
        del self._partial[:position]

    def _push(self, piece: bytes) -> None:
        self._frames.append(piece)
        self._buffered_bytes += len(piece)

    def _pop(self) -> dict[str, Any] | bytes:
        frame = self._frames.popleft()
        if isinstance(frame, bytes):
            self._buffered_bytes -= len(frame)
            if self._paused and self._buffered_bytes <= PAUSE_ABOVE_BYTES and self._transport is not None:
                self._paused = False
                if not self._closed:
                    self._transport.resume_reading()
        return frame

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        status = 0 if result is None else result.si_status
        if result is not None and result.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            status = -status
        self.exited.set_result(status)
        self._control.close()

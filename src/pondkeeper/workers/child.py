"""The keeper's end of a child process: frames in both directions, interrupt, kill, and the truth about its death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import Any, cast

import structlog

from pondkeeper.workers.frames import FrameInvalid, encode
from pondkeeper.workers.inbox import Inbox
from pondkeeper.workers.interrupts import NUMBER

_log = structlog.get_logger(__name__)
PAUSE_ABOVE_BYTES = 1024 * 1024


class ChildGone(Exception):
    """The child process has ended; `status` is its exit code, or minus the signal that killed it.

    `unread`: it died before it had read all that was sent to it, so the last message had no effect.
    """

    def __init__(self, status: int, *, unread: bool = False) -> None:
        super().__init__(f"child ended with status {status}")
        self.status = status
        self.unread = unread


class Child(asyncio.Protocol):
    """One child process; its frames are read with `next_frame`, one consumer at a time."""

    def __init__(self, name: str, pid: int, pipe: socket.socket, control: socket.socket) -> None:
        self.name = name
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(pid)
        self._pipe = pipe
        self._control = control
        self._inbox = Inbox(name)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._closed = False
        self._unread = False
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    # What the keeper does with it

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a message to a dead child is lost, which `next_frame` tells."""
        if self._closed or self._has_hung_up():
            self._unread = True
        elif self._transport is not None:
            self._transport.write(encode(message))

    def _has_hung_up(self) -> bool:
        """Whether the child has closed its end, which the event loop may not have noticed yet."""
        try:
            return not self._pipe.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:  # a reset, or our own end is closed
            return True

    async def next_frame(self) -> dict[str, Any] | bytes:
        """The next message, or a piece of a DATA frame. Raises ChildGone when the child has ended."""
        while (frame := self.frame_ready()) is None:
            if self._closed:
                raise ChildGone(await asyncio.shield(self.exited), unread=self._unread)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return frame

    def frame_ready(self) -> dict[str, Any] | bytes | None:
        """A frame that has arrived already, without waiting."""
        frame = self._inbox.pop()
        if self._paused and self._inbox.data_bytes <= PAUSE_ABOVE_BYTES and self._transport is not None:
            self._paused = False
            if not self._closed:
                self._transport.resume_reading()
        return frame

    @property
    def buffered_bytes(self) -> int:
        """Bytes of answers that wait here for their client."""
        return self._inbox.data_bytes

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

    def work_done(self) -> tuple[int, ...]:
        """Counters that move while the child works: CPU ticks, page faults, bytes read and written; () once it is gone.

        A child that waits for a disk counts as working: that wait ends by itself, and a kill would not shorten it.
        """
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                words = file.read().rpartition(")")[2].split()
            with open(f"/proc/{self.pid}/io") as file:
                read, written = (int(line.split()[1]) for line in file.readlines()[:2])
        except (OSError, ValueError):
            return ()
        waits_for_disk = time.monotonic_ns() if words[0] == "D" else 0
        return (int(words[9]), int(words[11]), int(words[12]), read, written, waits_for_disk)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        try:
            self._inbox.feed(data)
        except FrameInvalid as error:  # hostile SQL may have taken the child over: it gets no second chance
            _log.error("child sent no frame", child=self.name, pid=self.pid, reason=str(error))
            self.kill()
        self._wake()
        if self._inbox.data_bytes > PAUSE_ABOVE_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        # The kernel resets a Unix socket whose other end closes it with bytes unread, and refuses what is sent later.
        self._closed, self._unread = True, self._unread or isinstance(exc, ConnectionError)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_exit(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except BlockingIOError:  # Why: a tracer (strace, gdb) is told of the end before us; we are called again at once.
            return
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = 0 if result is None else result.si_status
        if result is not None and result.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            status = -status
        self.exited.set_result(status)
        self._control.close()

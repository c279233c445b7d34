"""The child's ear for interrupts: a thread, because the main thread is deaf while the engine runs."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

NUMBER = struct.Struct("!Q")


def listen(control: socket.socket, on_interrupt: Callable[[int], None]) -> None:
    """Call `on_interrupt` with the number of each request that the keeper wants interrupted."""
    threading.Thread(target=_listen, args=(control, on_interrupt), name="interrupts", daemon=True).start()


def _listen(control: socket.socket, on_interrupt: Callable[[int], None]) -> None:
    with control.makefile("rb") as numbers:
        while len(data := numbers.read(NUMBER.size)) == NUMBER.size:
            on_interrupt(NUMBER.unpack(data)[0])

"""A way to a server: what goes there is kept to be looked at, and in what comes back a bit flips."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Way:
    """A forwarder: its port, and what clients have sent so far."""

    port: int
    sent: bytearray = field(default_factory=bytearray)


@contextlib.contextmanager
def tampering(port: int, what: bytes) -> Iterator[Way]:
    """A forwarder to `port` that flips a bit wherever these bytes come back in one piece."""
    listening = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []
    way = Way(listening.getsockname()[1])
    threads = [threading.Thread(target=_accept, args=(listening, port, what, open_ones, way))]
    threads[0].start()
    try:
        yield way
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for connection in open_ones:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        threads[0].join()
        for connection in open_ones:
            connection.close()


def _accept(listening: socket.socket, port: int, what: bytes, open_ones: list[socket.socket], way: Way) -> None:
    threads: list[threading.Thread] = []
    while True:
        try:
            here, _ = listening.accept()
        except OSError:
            break
        there = socket.create_connection(("127.0.0.1", port))
        open_ones += [here, there]
        ways = ((here, there, b"", way.sent), (there, here, what, bytearray()))
        threads += [threading.Thread(target=_forward, args=one) for one in ways]
        for thread in threads[-2:]:
            thread.start()
    for thread in threads:
        thread.join()


def _forward(source: socket.socket, target: socket.socket, what: bytes, passed: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            passed += data
            at = data.find(what) if what else -1
            if at >= 0:
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

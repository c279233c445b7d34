"""What a client may take on a connection, and who is at the other end of the control socket."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pondkeeper.settings import ServerSettings

_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times and sizes of a connection. `body_timeout_s` holds for both directions: receiving a body, and sending one."""

    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    linger_s: float = 2.0
    max_head_bytes: int = 64 * 1024
    max_url_bytes: int = 8 * 1024
    max_headers: int = 100
    max_body_bytes: int = 16 * 1024 * 1024
    max_pipelined: int = 64
    max_connections: int = 4096
    unsent_bytes: int = 1024 * 1024

    @classmethod
    def of(cls, settings: ServerSettings, max_connections: int) -> Bounds:
        """The bounds that the settings ask for."""
        return cls(
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            max_body_bytes=settings.max_body_bytes,
            max_url_bytes=settings.max_url_bytes,
            max_connections=max_connections,
        )

    def on_the_wire(self, max_body_bytes: int | None) -> int:
        """A body in chunks of one byte takes six times its size; what is beyond that are endless trailers."""
        return 8 * (max_body_bytes or self.max_body_bytes) + self.max_head_bytes

    @property
    def sweep_interval_s(self) -> float:
        """How often deadlines are looked at: often enough to keep the shortest of them."""
        return min(1.0, self.header_timeout_s / 4, self.body_timeout_s / 4, self.keep_alive_s / 4)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of the control socket, as the kernel names it."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """The process at the other end of a unix socket."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return Peer(pid, uid)

"""The sockets that the keeper listens on: TCP, and the control socket in its home."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pondkeeper.errors import DatabaseReadOnly, SettingInvalid

if TYPE_CHECKING:
    from pathlib import Path

BACKLOG: Final = 4096


def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of `host`, all on one port. Raises SettingInvalid."""
    listening: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            opened = _listen(family, address[0], listening[0].getsockname()[1] if listening else port)
            listening.append(opened)
    except OSError as error:
        for opened in listening:
            opened.close()
        raise _unusable(host, port, error) from error
    return listening


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    unique = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
    return [(family, (address, port)) for family, address in unique]


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _unusable(host: str, port: int, error: OSError) -> SettingInvalid:
    if error.errno == errno.EADDRINUSE:
        return SettingInvalid(
            f"Port {port} of {host} is in use by another program.",
            remedy="Stop that program, or choose another port: `--port`, or `server.port`; 0 takes any free one.",
        )
    reason = error.strerror or str(error)
    return SettingInvalid(f"The keeper cannot listen on {host}, port {port}: {reason}.", private=str(error))


def listen_control(path: Path) -> socket.socket:
    """The control socket, 0600. What lies there is of a keeper that is gone: the caller holds the home's lock.

    Raises DatabaseReadOnly.
    """
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        return _bind_control(path)
    except OSError as error:
        raise DatabaseReadOnly("The control socket cannot be made in the keeper's home.", private=str(error)) from error


def _bind_control(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Why through /proc: a socket address holds 107 bytes, and a home may lie deeper than that.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o177)
    try:
        opened.bind(f"/proc/self/fd/{folder}/{path.name}")
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    finally:
        os.umask(before)
        os.close(folder)
    return opened

"""The Host header: a web page whose name was made to point here (DNS rebinding) must not reach the keeper."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from pondkeeper.errors import HostNotAllowed, HttpInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY: Final = "*"
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?\Z", re.ASCII)


class Hosts:
    """The hosts that this keeper answers for: localhost, addresses, the one listened on, and `server.allowed_hosts`."""

    def __init__(self, listening: str, allowed: Iterable[str]) -> None:
        self._names = {"localhost", _plain(listening), *map(_plain, allowed)}
        self._known: set[bytes] = set()

    def check(self, host: bytes | None) -> None:
        """Raise HttpInvalid without a Host, HostNotAllowed for one that is not ours."""
        if host in self._known:
            return
        if host is None:
            raise HttpInvalid("The request has no Host header.", remedy="Send one: HTTP/1.1 demands it.")
        if not self._is_ours(host.decode("latin-1")):
            raise HostNotAllowed
        if len(self._known) < 100:
            self._known.add(host)

    def _is_ours(self, host: str) -> bool:
        match = _HOST.match(host)
        if match is None:
            return False
        name = _plain(match[1])
        # Why any address: a page gets at us by a name that it controls, never by an address.
        return name in self._names or ANY in self._names or _is_address(name)


def _plain(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

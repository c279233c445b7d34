"""What travels in the ASGI scope beside the standard: who asks, and the exchange on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from pondkeeper.access.keys import Role

if TYPE_CHECKING:
    from starlette.types import Scope

    from pondkeeper.access.audit import Entry
    from pondkeeper.access.keys import Key
    from pondkeeper.server.exchange import Exchange

Headers: TypeAlias = list[tuple[bytes, bytes]]

CALLER: Final = "pondkeeper.caller"
EXCHANGE: Final = "pondkeeper.exchange"
ENTRY: Final = "pondkeeper.entry"
PATIENCE: Final = "pondkeeper.patience"  # seconds that the request has for itself, where it has said so


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return cast(bytes, value)
    return None


def caller_of(scope: Scope) -> Key:
    """The key that asks: the gate has put it there."""
    return cast("Key", scope[CALLER])


def entry_of(scope: Scope) -> Entry:
    """What the audit will tell of this request: whoever handles it fills it in."""
    return cast("Entry", scope[ENTRY])


def exchange_of(scope: Scope) -> Exchange | None:
    """The exchange on our own protocol; None under another ASGI server."""
    return cast("Exchange | None", scope.get(EXCHANGE))


def client_of(scope: Scope) -> str:
    """Who is at the other end, for lists and logs: an address, or the process on the control socket."""
    exchange = exchange_of(scope)
    if exchange is not None and exchange.peer is not None:
        return f"pid {exchange.peer.pid}"
    client: Any = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unknown"


def sees_private(scope: Scope) -> bool:
    """Whether paths and the like may be shown: to administrators of the whole keeper only."""
    caller = cast("Key | None", scope.get(CALLER))
    return caller is not None and caller.role is Role.ADMIN and caller.is_for_every_database

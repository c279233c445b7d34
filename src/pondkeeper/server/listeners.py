"""Answers that go on for as long as something lasts: who may have one, and whether he still may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pondkeeper.access.tokens import token_in_header
from pondkeeper.errors import PondkeeperError, RateLimited
from pondkeeper.server.scopes import exchange_of, header

if TYPE_CHECKING:
    from starlette.types import Scope

    from pondkeeper.access.keys import Key
    from pondkeeper.server.context import Context

MAX_LISTENERS: Final = 256
MAX_LISTENERS_PER_KEY: Final = 32


class Seats:
    """So many may listen at a time, in all and with one key."""

    def __init__(self) -> None:
        self._by_key: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are taken."""
        return self._by_key.total()

    @contextmanager
    def taken_by(self, key: Key) -> Iterator[None]:
        """A seat for as long as the `with` lasts. Raises RateLimited."""
        if self.count >= MAX_LISTENERS or self._by_key[key.id] >= MAX_LISTENERS_PER_KEY:
            raise RateLimited(
                f"{MAX_LISTENERS_PER_KEY} may listen with one key, and {MAX_LISTENERS} in all.", limit="listeners", retry_after_s=5
            )
        self._by_key[key.id] += 1
        try:
            yield
        finally:
            self._by_key[key.id] -= 1
            self._by_key += Counter()  # Why: it forgets the keys that nobody listens with.


async def is_still_let_in(context: Context, scope: Scope) -> bool:
    """Whether the key is still live: one that was revoked hears nothing of what happens after that."""
    exchange = exchange_of(scope)
    if exchange is not None and exchange.peer is not None:
        return True
    try:
        await context.keys.authenticate(token_in_header(header(scope, b"authorization")))
    except PondkeeperError:
        return False
    return True

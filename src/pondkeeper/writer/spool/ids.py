"""The ids of tickets: the place in the order of the database, with a mark that nobody else can make."""

from __future__ import annotations

import hmac
import re
from hashlib import blake2b
from typing import Final

from pondkeeper.errors import TicketNotFound

PREFIX: Final = "tk_"
_FORM: Final = re.compile(r"tk_([0-9a-f]{12})([0-9a-f]{16})\Z")


class TicketIds:
    """Makes ids and reads them. Why a mark: an id is the proof that its ingest was accepted, and cannot be guessed."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, place: int) -> str:
        """The id of the ticket at this place; ids sort as places do."""
        return f"{PREFIX}{place:012x}{self._mark(place)}"

    def place(self, ticket: str) -> int:
        """The place of this ticket. Raises TicketNotFound for what is no id of ours."""
        form = _FORM.match(ticket)
        if form is None or not hmac.compare_digest(form[2], self._mark(int(form[1], 16))):
            raise not_found(ticket)
        return int(form[1], 16)

    def _mark(self, place: int) -> str:
        return blake2b(place.to_bytes(8, "little"), key=self._secret, digest_size=8).hexdigest()


def not_found(ticket: str) -> TicketNotFound:
    """There is no such ticket."""
    return TicketNotFound(f"There is no ticket {ticket[:64]!r}.")

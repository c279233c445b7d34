"""Tickets as they are seen from outside: those that wait are read from the log, those with an outcome from the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pondkeeper.writer.spool.ids import TicketIds, not_found
from pondkeeper.writer.spool.kept import KeptBodies, Refused
from pondkeeper.writer.spool.ledger import Ledger, Settled
from pondkeeper.writer.spool.line import Line, read
from pondkeeper.writer.spool.log import Entry

PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """A ticket: `entry` while it waits, with `before` it so many others; `settled` when it has its outcome.

    `refused`: what is kept of one that was refused.
    """

    ticket: str
    entry: Entry | None = None
    settled: Settled | None = None
    before: int = 0
    is_taken: bool = False
    refused: Refused | None = None

    @property
    def outcome(self) -> str:
        """waiting, committed, refused or cancelled."""
        return "waiting" if self.settled is None else self.settled.outcome

    @property
    def key_id(self) -> str | None:
        """Whose it is."""
        return self.settled.key_id if self.settled is not None else self.entry.header.key_id if self.entry else None

    def describe(self) -> dict[str, Any]:
        """The ticket as `GET …/tickets/{id}` shows it."""
        if self.settled is not None:
            said = msgspec.to_builtins(self.settled)
            return {"ticket": self.ticket, **_COMMON, **said, **_times(said), **self._of_body()}
        assert self.entry is not None
        header = self.entry.header
        said = {
            "outcome": self.outcome,
            "table": header.name,
            "accepted_at": header.accepted_at,
            "place": self.before,
            "is_being_applied": self.is_taken,
            "key_id": header.key_id,
            "client": header.client,
        }
        return {"ticket": self.ticket, **_COMMON, **said, **_times(said)}


    def _of_body(self) -> dict[str, Any]:
        if self.refused is None:
            return {}
        retried_as = self.refused.retried_as
        return {"body_bytes": self.refused.size_bytes} if retried_as is None else {"retried_as": retried_as}


_COMMON: Final[dict[str, Any]] = dict.fromkeys(("outcome", "table", "accepted_at", "key_id", "client"))


def _times(said: dict[str, Any]) -> dict[str, str]:
    return {name: _moment(said[name]) for name in ("accepted_at", "settled_at") if name in said}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class Tickets:
    """Looks at tickets; what waits for the disk is done on other threads."""

    def __init__(self, ledger: Ledger, ids: TicketIds, line: Line, kept: KeptBodies) -> None:
        self._ledger = ledger
        self._ids = ids
        self._line = line
        self._kept = kept

    async def find(self, ticket: str) -> Seen:
        """One ticket. Raises TicketNotFound: never given out, or its outcome was kept for long enough."""
        place = self._ids.place(ticket)
        for _ in range(2):  # Why twice: it may get its outcome between the two looks.
            if (settled := await asyncio.to_thread(self._ledger.outcome, place)) is not None:
                return await asyncio.to_thread(self._with_outcome, ticket, settled)
            entries = await self._waiting(place, 1)
            if entries and entries[0].place == place:
                return self._seen(entries[0])
        raise not_found(ticket)

    async def waiting(self, limit: int) -> list[Seen]:
        """The first of those that wait, in the order of their turns."""
        return [self._seen(entry) for entry in await self._waiting(self._line.cursor, limit)]

    async def settled(self, limit: int) -> list[Seen]:
        """Those with an outcome, the youngest first."""
        newest = await asyncio.to_thread(self._ledger.newest, limit)
        return await asyncio.to_thread(lambda: [self._with_outcome(self._ids.of(place), settled) for place, settled in newest])

    def _with_outcome(self, ticket: str, settled: Settled) -> Seen:
        refused = self._kept.find(ticket) if settled.outcome == "refused" else None
        return Seen(ticket, settled=settled, refused=refused)

    def id_of(self, entry: Entry) -> str:
        """The id of the ticket of an entry."""
        return self._ids.of(entry.place)

    def _seen(self, entry: Entry) -> Seen:
        line = self._line
        return Seen(self._ids.of(entry.place), entry, None, line.before(entry.place), entry.place < line.taken_to)

    async def _waiting(self, place: int, limit: int) -> list[Entry]:
        found: list[Entry] = []
        while len(found) < limit and (piece := self._line.piece(place, PIECE_BYTES)) is not None:
            try:
                entries = await asyncio.to_thread(read, piece, limit - len(found), PIECE_BYTES)
            except FileNotFoundError:  # all of it has its outcome meanwhile
                break
            found += [entry for entry in entries if self._line.is_waiting(entry.place)]
            place = entries[-1].place + 1 if entries else self._line.end_of(piece)
        return found

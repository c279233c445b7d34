"""The spool of a database: ingests that are accepted and durable, applied later in their order, each exactly once.

Knows nothing of SQL and of the database's file: it accepts while a program has the lease, and while the file cannot be
opened at all. Whoever applies takes `batch()` after `batch()`, and says by `settle` what has become of each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from pondkeeper.errors import PondkeeperError, SpoolFull, SpoolUnavailable, TicketNotWaiting
from pondkeeper.files.durable import make_folder, sync_file, sync_folder
from pondkeeper.writer.spool.appending import Appender, Item, Report, Told
from pondkeeper.writer.spool.ids import TicketIds
from pondkeeper.writer.spool.kept import KeptBodies
from pondkeeper.writer.spool.ledger import Ledger, Settled, settled
from pondkeeper.writer.spool.line import Line, read
from pondkeeper.writer.spool.log import Draft, Entry, Header
from pondkeeper.writer.spool.recovery import Found, damaged_files, recover
from pondkeeper.writer.spool.segments import Piece, Segment, retire
from pondkeeper.writer.spool.tickets import Seen, Tickets

BATCH_ENTRIES: Final = 10_000
BATCH_BYTES: Final = 4 * 1024 * 1024
DROPPED_WHEN_DONE_BYTES: Final = 1024 * 1024
FORGET_EVERY_S: Final = 60.0
RETRY_WHEN_FULL_S: Final = 5
RECEIVING: Final = ".receiving"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SpoolLimits:
    """How much may wait, and how long the outcome of a ticket is kept, and the body of one that was refused."""

    max_bytes: int
    max_entries: int
    keep_s: float
    refused_keep_s: float = 3600.0
    refused_max_bytes: int = 1024 * 1024


@dataclass
class Tally:
    """What happened since the keeper started."""

    accepted: int = 0
    committed: int = 0
    refused: int = 0
    cancelled: int = 0

    def settled(self, outcome: str) -> None:
        """Count an outcome."""
        setattr(self, outcome, getattr(self, outcome) + 1)


class Spool:
    """Belongs to the event loop, which never waits for its disk. Open before use."""

    def __init__(self, folder: Path, incoming: Path, limits: SpoolLimits) -> None:
        self._folder = folder
        self._incoming = incoming
        self._limits = limits
        self.kept = KeptBodies(folder / "refused", incoming, limits.refused_keep_s, limits.refused_max_bytes)
        self._ledger: Ledger | None = None
        self._ids = TicketIds(b"")
        self._line = Line()
        self._changing = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._progress = asyncio.Event()
        self._filed_bytes = self._pending_bytes = 0
        self._forgot_at = time.monotonic()
        self._is_closed = False
        self.waiting = 0
        self.tally = Tally()
        self.damaged: list[str] = []
        self.problem: PondkeeperError | None = SpoolUnavailable("The spool is being opened.", retry_after_s=1)

    # Life

    async def open(self) -> None:
        """Find what an earlier keeper has left, and begin to accept. Raises SpoolUnavailable or DiskFull."""
        try:
            ledger, found, self._line = await asyncio.to_thread(self._recover)
        except (OSError, PondkeeperError) as error:
            self.problem = error if isinstance(error, PondkeeperError) else SpoolUnavailable(private=str(error))
            raise self.problem.again() from error
        self._ledger, self._ids = ledger, TicketIds(ledger.secret)
        self.waiting = found.waiting - len(self._line.cancelled)
        self._filed_bytes = sum(entry.header.size_bytes for entry in found.filed)
        self._appender = Appender(self._folder, ledger, found.next_place, self._on_report)
        self.problem = None
        if self.waiting or found.torn_bytes:
            database = self._folder.parent.name
            _log.info("the spool goes on", database=database, waiting=self.waiting, cut_off_bytes=found.torn_bytes)
        self._arrived.set()

    def _recover(self) -> tuple[Ledger, Found, Line]:
        make_folder(self._folder)
        make_folder(self._incoming)
        ledger = Ledger(self._folder / "tickets.db")
        try:
            cursor = ledger.cursor
            found = recover(self._folder, cursor, ledger.keyed_before)
            ledger.drop_keys_from(found.next_place)
            ledger.remember([(e.header.key, e.header.digest, e.place) for e in found.keyed if e.header.key is not None])
            cancelled = set(ledger.places_from(cursor))
            line = Line(found.segments, cursor, found.next_place, cursor, cancelled)
            wanted = {entry.header.file for entry in found.filed if entry.place not in cancelled}
            self._remove_strays(wanted)
            damaged = [segment.path for segment in found.segments if segment.is_damaged]
            self.damaged = sorted(path.stem for path in [*damaged_files(self._folder), *damaged])
        except BaseException:  # Why: whatever went wrong, the file must not stay open behind it.
            ledger.close()
            raise
        return ledger, found, line

    def _remove_strays(self, wanted: set[str | None]) -> None:
        """Remove finished bodies that no entry waits with: the keeper ended before it accepted them, or removed them."""
        for path in self._incoming.iterdir():
            if path.name not in wanted and path.suffix != RECEIVING:
                path.unlink()

    async def close(self) -> None:
        """Accept nothing more; what was accepted is on disk."""
        if self._ledger is not None and not self._is_closed:
            self._is_closed = True
            await self._appender.close()
            await asyncio.to_thread(self._ledger.close)
        self._is_closed = True

    def _check_open(self) -> Ledger:
        if self.problem is not None:
            raise self.problem.again()
        if self._ledger is None or self._is_closed:
            raise SpoolUnavailable("The spool is closed.", retry_after_s=1)
        return self._ledger

    @property
    def size_bytes(self) -> int:
        """What it takes on disk, with what is on its way there."""
        return self._line.size_bytes + self._filed_bytes + self._pending_bytes

    # Accepting

    async def accept(self, header: Header, body: bytes = b"") -> str:
        """Take an ingest in: its ticket. It is durable when this returns, and behind all that were accepted before.

        A large body is a file under `incoming` that `header.file` names; it is the spool's if this returns.
        Raises SpoolFull, DiskFull, IdempotencyConflict or SpoolUnavailable: not accepted; or OutcomeUnknown.
        """
        self._check_open()
        self._check_room(len(body) + header.size_bytes)
        if header.file is not None:
            await asyncio.to_thread(self._make_durable, header.file)
        filed_bytes = header.size_bytes if header.file is not None else 0
        told_by = asyncio.get_running_loop().create_future()
        item = Item(Draft.of(header, body), header.digest, header.key, told_by, filed_bytes)
        self._pending_bytes += item.size_bytes
        self.waiting += 1
        self._appender.put(item)
        # Why shielded: one whose client goes meanwhile is accepted all the same.
        told = await asyncio.shield(item.told)
        if told.error is not None:
            raise told.error.again()
        if header.file is not None and not told.is_new:
            await asyncio.to_thread(self._remove, [], [header.file])
        return self._ids.of(told.place)

    def _check_room(self, size_bytes: int) -> None:
        if self.waiting >= self._limits.max_entries:
            raise SpoolFull(f"{self.waiting} accepted ingests wait already.", retry_after_s=RETRY_WHEN_FULL_S)
        if self.size_bytes + size_bytes > self._limits.max_bytes:
            raise SpoolFull(f"{self.size_bytes} bytes wait in the spool already.", retry_after_s=RETRY_WHEN_FULL_S)

    def _make_durable(self, name: str) -> None:
        try:
            sync_file(self._incoming / name)
            sync_folder(self._incoming)
        except OSError as error:
            raise SpoolUnavailable("The spool cannot be written; nothing was accepted.", private=str(error)) from error

    def _on_report(self, report: Report) -> None:
        """The appending thread is done with a group."""
        if report.group is not None and report.path is not None:
            self._line.take(Segment(report.path, report.segment_id, 0, 0), report.group)
            self.tally.accepted += len(report.appended)
            self._arrived.set()
        for place, item in enumerate(report.appended, report.group.first_place if report.group else 0):
            self._filed_bytes += item.filed_bytes
            self._tell(item, Told(place, is_new=True))
        for item, place in report.known:
            self.waiting -= 1
            self._tell(item, Told(place))
        for item, error in report.failed:
            self.waiting -= 1
            self._tell(item, Told(error=error))

    def _tell(self, item: Item, told: Told) -> None:
        self._pending_bytes -= item.size_bytes
        if not item.told.done():
            item.told.set_result(told)

    # Applying

    async def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to be applied; False when nothing came within the time."""
        if not self._line.has_waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return False
        return True

    async def batch(self) -> list[Entry]:
        """The next entries in their order, to be applied; they cannot be taken back until `settle` or `put_back`."""
        async with self._changing:
            line, place = self._line, self._line.cursor
            while (piece := line.piece(place, BATCH_BYTES)) is not None:
                entries = await asyncio.to_thread(read, piece, BATCH_ENTRIES, BATCH_BYTES)
                place = entries[-1].place + 1 if entries else line.end_of(piece)
                self._see_gaps(piece, place - piece.place - len(entries))
                wanted = [entry for entry in entries if entry.place not in line.cancelled]
                if wanted:
                    line.taken_to = place
                    return wanted
            # Why: all that seemed to wait was taken back, or is lost; see to it that nobody looks for it again.
            await self._move_to(max(place, line.cursor))
            return []

    def _see_gaps(self, piece: Piece, missing: int) -> None:
        """Entries that were whole once, and could not be read now, are damage; those known of already are not told again."""
        segment = self._line.segment_of(piece)
        if not missing or segment is None or segment.is_damaged:
            return
        segment.is_damaged = True
        self.waiting -= missing
        self.damaged = sorted({*self.damaged, piece.path.stem})
        _log.error("the spool is damaged: accepted entries are lost", segment=piece.path.name, entries=missing)

    async def _move_to(self, cursor: int) -> None:
        await asyncio.to_thread(self._check_open().settle, [], cursor)
        await self._clear_away([], cursor)

    def put_back(self) -> None:
        """What was taken is not applied now: it may be taken back again."""
        self._line.taken_to = self._line.cursor

    async def settle(self, outcomes: Sequence[tuple[Entry, Settled]]) -> None:
        """Write down what has become of the first entries of the batch, and forget their bodies. Raises as `open`."""
        cursor = outcomes[-1][0].place + 1
        rows = [(entry.place, each) for entry, each in outcomes]
        await asyncio.to_thread(self._check_open().settle, rows, cursor)
        for _, each in outcomes:
            self.tally.settled(each.outcome)
        self.waiting -= len(outcomes)
        self._tell_progress()
        await self._clear_away([entry for entry, _ in outcomes if entry.header.file is not None], cursor)

    async def _clear_away(self, filed: Sequence[Entry], cursor: int) -> None:
        """Remove segments that are wholly applied, and bodies that lay in files of their own."""
        done = self._line.advance(cursor)
        active = self._line.active
        if active is not None and active.next_place <= cursor and active.size_bytes >= DROPPED_WHEN_DONE_BYTES:
            done += await self._sealed()
        self._filed_bytes -= sum(entry.header.size_bytes for entry in filed)
        await asyncio.to_thread(self._remove, done, [entry.header.file for entry in filed if entry.header.file])

    async def tidy(self) -> None:
        """In a quiet moment: remove what is applied, forget outcomes that were kept for long enough."""
        ledger = self._check_open()
        if self._line.active is not None and not self._line.has_waiting:
            async with self._changing:
                await self._move_to(self._line.next_place)
            await asyncio.to_thread(self._remove, await self._sealed(), [])
        if time.monotonic() - self._forgot_at >= FORGET_EVERY_S:
            self._forgot_at = time.monotonic()
            await asyncio.to_thread(ledger.forget, self._limits.keep_s, self._line.cursor)
            await asyncio.to_thread(self.kept.forget)

    async def _sealed(self) -> list[Segment]:
        """The segment that was written, if all of it is applied and nothing more comes into it."""
        await self._appender.seal()
        dropped = self._line.drop_last()
        return [] if dropped is None else [dropped]

    def _remove(self, segments: Sequence[Segment], files: Sequence[str]) -> None:
        for name in files:
            (self._incoming / name).unlink(missing_ok=True)
        for segment in segments:
            retire(segment)
        if segments:
            sync_folder(self._folder)

    # Tickets

    @property
    def tickets(self) -> Tickets:
        """What is to be seen of them."""
        return Tickets(self._check_open(), self._ids, self._line, self.kept)

    async def take_back(self, ticket: str) -> None:
        """Cancel a ticket that waits: it is never applied. Raises TicketNotFound or TicketNotWaiting."""
        async with self._changing:
            seen = await self.tickets.find(ticket)
            if seen.entry is None:
                raise TicketNotWaiting(f"The ticket is {seen.outcome} already.")
            if seen.entry.place < self._line.taken_to:
                raise TicketNotWaiting("The ticket is being applied right now.")
            cancelled = settled(seen.entry, "cancelled")
            await asyncio.to_thread(self._check_open().settle, [(seen.entry.place, cancelled)])
            self._line.cancelled.add(seen.entry.place)
            self.waiting -= 1
            self.tally.settled("cancelled")
        self._tell_progress()
        if seen.entry.header.file is not None:
            self._filed_bytes -= seen.entry.header.size_bytes
            await asyncio.to_thread(self._remove, [], [seen.entry.header.file])

    async def outcome(self, ticket: str, timeout_s: float) -> Seen:
        """What became of a ticket; waits at most so long for it to become anything."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_s
        while True:
            progress = self._progress
            seen = await self.tickets.find(ticket)
            left_s = give_up_at - loop.time()
            if seen.settled is not None or left_s <= 0:
                return seen
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await progress.wait()

    def _tell_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def describe(self) -> dict[str, Any]:
        """The spool in numbers, from memory."""
        problem = self.problem
        return {
            "waiting": self.waiting,
            "size_bytes": self.size_bytes,
            "oldest_s": round(self._line.oldest_s, 3) if self._line.has_waiting else 0.0,
            **asdict(self.tally),
            "damaged": self.damaged,
            "problem": problem.to_wire() if problem is not None else None,
        }

"""The drain: what the spool has accepted is applied in its order, through the same queue as all other writes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pondkeeper.databases.combining import Combiner, Load, request_of, write_body
from pondkeeper.databases.requests import IngestOutcome, IngestRequest
from pondkeeper.errors import (
    DatabaseBusy,
    DatabaseUnavailable,
    KeeperStopping,
    OutcomeUnknown,
    PartsApplied,
    PondkeeperError,
    QueryCancelled,
    QueueFull,
    ReadersBusy,
    SpoolUnavailable,
    TableChanged,
    WriteTimedOut,
)
from pondkeeper.settings.tree import DAY_S
from pondkeeper.writer.spool.ledger import Settled, settled
from pondkeeper.writer.spool.log import Entry
from pondkeeper.writer.spool.spool import Spool

CLIENT: Final = "spool"
IDLE_S: Final = 5.0
LEAST_PAUSE_S: Final = 0.1
MOST_PAUSE_S: Final = 15.0
TRIES: Final = 3
STOP_AGAIN_S: Final = 1.0
# Why these: they say nothing of the rows. Whoever was promised that they are applied is not refused because of them.
PASSING: Final = (
    DatabaseUnavailable, KeeperStopping, OutcomeUnknown, QueryCancelled, QueueFull, ReadersBusy, TableChanged, WriteTimedOut,
)  # fmt: skip
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outside:
    """What the drain needs of its database.

    `stop_load()` stops what it has under way there, if that can be. `quiet()`: a number that is another one whenever
    somebody else has had the file, None while somebody may have it, or has left what is not published yet.
    `may_forget(yes)`: whether the database may forget keys that were kept for long enough.
    """

    incoming: Path
    ingest: Callable[[IngestRequest], Awaitable[IngestOutcome]]
    stop_load: Callable[[], None]
    quiet: Callable[[], int | None]
    may_forget: Callable[[bool], None]


class Drain:
    """One per database; `run` goes on until it is cancelled."""

    def __init__(self, spool: Spool, outside: Outside, timeout_s: float) -> None:
        self._spool = spool
        self._outside = outside
        self._first_timeout_s = self._timeout_s = timeout_s
        self._combiner = Combiner()
        self._has_batch = asyncio.Lock()
        self._wanted_back = 0
        self._tries = 0
        self._wants_quiet = False
        self.problem: PondkeeperError | None = None

    async def run(self) -> None:
        """Apply whatever waits, for ever."""
        pause_s = LEAST_PAUSE_S
        while True:
            try:
                await self._next()
                pause_s, self.problem = LEAST_PAUSE_S, None
            except (PondkeeperError, OSError) as raised:
                error = raised if isinstance(raised, PondkeeperError) else SpoolUnavailable(private=str(raised))
                if isinstance(error, KeeperStopping):
                    return
                self._note(error)
                pause_s = LEAST_PAUSE_S if isinstance(error, DatabaseBusy) else min(2 * pause_s, MOST_PAUSE_S)
                await asyncio.sleep(pause_s)
                await self._quiet_again()

    async def _quiet_again(self) -> None:
        """Wait until nobody else has the file, if a refusal waits for that: trying meanwhile would only cost time."""
        while self._wants_quiet and self._outside.quiet() is None:  # noqa: ASYNC110  Why: it is the eye that looks, by time
            await asyncio.sleep(LEAST_PAUSE_S)
        self._wants_quiet = False

    def _note(self, error: PondkeeperError) -> None:
        """Keep it for the status; the log gets it once."""
        is_news = self.problem is None or self.problem.code != error.code
        self.problem = error.again()
        log = _log.warning if is_news and not isinstance(error, QueryCancelled) else _log.debug
        log("accepted ingests cannot be applied yet", waiting=self._spool.waiting, error=error.to_wire(with_private=True))

    async def _next(self) -> None:
        if self._spool.problem is not None:
            await self._spool.open()
            self._outside.may_forget(not self._spool.waiting)
        if not await self._spool.wait(IDLE_S):
            await self._spool.tidy()
            return
        async with self._has_batch:
            try:
                for load in await asyncio.to_thread(self._combiner.loads, await self._spool.batch()):
                    if self._wanted_back:
                        return
                    await self._apply(load)
                # Why only after a whole batch: one that was committed and not noted by an earlier keeper is within it.
                self._outside.may_forget(True)
            finally:
                self._spool.put_back()

    async def take_back(self, ticket: str) -> None:
        """Cancel a ticket; what is being applied with it is stopped, if it can be. Raises as `Spool.take_back`."""
        if not (await self._spool.outcome(ticket, 0)).is_taken:
            await self._spool.take_back(ticket)
            return
        self._wanted_back += 1
        try:
            await self._have_no_batch()
            try:
                await self._spool.take_back(ticket)
            finally:
                self._has_batch.release()
        finally:
            self._wanted_back -= 1

    async def _have_no_batch(self) -> None:
        """Stop what is being applied, again and again since it may only be on its way, and take the lock."""
        acquiring = asyncio.ensure_future(self._has_batch.acquire())
        try:
            while not acquiring.done():
                self._outside.stop_load()
                await asyncio.wait({acquiring}, timeout=STOP_AGAIN_S)
        except asyncio.CancelledError:
            acquiring.add_done_callback(lambda _: self._has_batch.release() if not acquiring.cancelled() else None)
            acquiring.cancel()
            raise

    # One load

    async def _apply(self, load: Load) -> None:
        """Apply entries until each has its outcome. Raises what is not their fault: they wait on."""
        before = self._outside.quiet()
        try:
            outcome = await self._loaded(load)
        except PartsApplied as error:
            await self._apply_apart(load, set(error.details["known"]))
        except WriteTimedOut:
            self._timeout_s = min(2 * self._timeout_s, DAY_S)
            raise
        except PASSING:
            raise
        except PondkeeperError as error:
            if before is None or self._outside.quiet() != before:
                # Why: whoever has the file may be making the table, or the column, that was missed.
                self._wants_quiet = True
                raise DatabaseBusy("Another program has the database, or has just had it.") from error
            await self._refuse(load, error)
        else:
            self._tries, self._timeout_s = 0, self._first_timeout_s
            await self._settle(load, outcome)
            self._combiner.loaded(load)

    async def _loaded(self, load: Load) -> IngestOutcome:
        """Have the load committed; the file that it needs for that is removed whatever comes of it."""
        filed = load.entries[0].header.file
        body = self._outside.incoming / (filed or f"drain-{secrets.token_hex(8)}")
        try:
            if filed is None:
                await asyncio.to_thread(self._written, load, body)
            if self._wanted_back:
                raise QueryCancelled
            return await self._outside.ingest(request_of(load, body, self._timeout_s, self._keys(load), CLIENT))
        finally:
            if filed is None:
                with suppress(OSError):
                    await asyncio.to_thread(body.unlink)

    def _written(self, load: Load, body: Path) -> None:
        try:
            write_body(load, body)
        except OSError as error:
            raise DatabaseUnavailable("The folder of the spool cannot be written.", private=str(error)) from error

    def _keys(self, load: Load) -> list[str]:
        """The name of each entry in the database: its client's key, so that both promises know each other, or its ticket."""
        tickets = self._spool.tickets
        return [entry.header.key or tickets.id_of(entry) for entry in load.entries]

    async def _apply_apart(self, load: Load, applied: set[str]) -> None:
        """Some are in the database already: they get their first outcome one by one, the others go on together."""
        sizes: list[int] = []
        was_applied = True
        for key in self._keys(load):
            is_applied = key in applied
            if sizes and not is_applied and not was_applied:
                sizes[-1] += 1
            else:
                sizes.append(1)
            was_applied = is_applied
        for part in load.cut(sizes):
            await self._apply(part)

    async def _refuse(self, load: Load, error: PondkeeperError) -> None:
        """One is told so; of several each half is tried alone, so that only the guilty is refused."""
        if load.count > 1:
            for half in load.cut((load.count // 2, load.count - load.count // 2)):
                await self._apply(half)
            return
        self._tries += 1
        if error.http_status >= 500 and self._tries < TRIES:  # Why: a process that died may have died for another reason.
            raise error
        self._tries = 0
        [entry] = load.entries
        ticket = self._spool.tickets.id_of(entry)
        _log.warning("an accepted ingest was refused", ticket=ticket, error=error.to_wire())
        await asyncio.to_thread(self._spool.kept.keep, ticket, entry)
        await self._spool.settle([(entry, settled(entry, "refused", error=error.to_wire()))])

    async def _settle(self, load: Load, outcome: IngestOutcome) -> None:
        try:
            await self._spool.settle(_outcomes(load, outcome))
        except PondkeeperError:
            self._outside.may_forget(False)  # Why: only the database knows what became of them.
            raise


def _outcomes(load: Load, outcome: IngestOutcome) -> list[tuple[Entry, Settled]]:
    version = outcome.version
    if load.count == 1:
        [entry] = load.entries
        what = {"rows": outcome.rows, "rejected": outcome.rejected, "rejects": outcome.rejects}
        return [(entry, settled(entry, "committed", version=version, **what))]
    assert load.rows is not None
    pairs = zip(load.entries, load.rows, strict=True)
    return [(entry, settled(entry, "committed", version=version, rows=len(rows.lines))) for entry, rows in pairs]

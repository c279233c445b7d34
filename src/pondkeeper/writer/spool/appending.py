"""The thread that makes accepted ingests durable: whatever has come while it wrote shares the next fsync."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import structlog

from pondkeeper.errors import DiskFull, IdempotencyConflict, OutcomeUnknown, PondkeeperError, SpoolUnavailable
from pondkeeper.writer.spool.ledger import Known, Ledger
from pondkeeper.writer.spool.log import Draft, Group
from pondkeeper.writer.spool.segments import SegmentFile

SEGMENT_BYTES: Final = 32 * 1024 * 1024
GROUP_ENTRIES: Final = 4096
GROUP_BYTES: Final = 8 * 1024 * 1024
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of an item."""

    place: int = 0
    is_new: bool = False
    error: PondkeeperError | None = None


@dataclass(eq=False, slots=True)
class Item:
    """An ingest on its way into the log; `told` becomes its place, and whether it is new, or why it has none."""

    draft: Draft
    digest: str
    key: str | None
    told: asyncio.Future[Told]
    filed_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.draft.data) + self.filed_bytes


@dataclass
class Report:
    """What became of items: those of `group` are durable in `file`, `known` have a ticket already, the others failed."""

    group: Group | None = None
    path: Path | None = None
    segment_id: bytes = b""
    appended: list[Item] = field(default_factory=list)
    known: list[tuple[Item, int]] = field(default_factory=list)
    failed: list[tuple[Item, PondkeeperError]] = field(default_factory=list)


class Appender:
    """Owns the segment that is written. `report` is called on the event loop, in the order of the groups."""

    def __init__(self, folder: Path, ledger: Ledger, next_place: int, report: Callable[[Report], None]) -> None:
        self._folder = folder
        self._ledger = ledger
        self._next_place = next_place
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._items: SimpleQueue[Item | asyncio.Future[None] | None] = SimpleQueue()
        self._file: SegmentFile | None = None
        self._unnoted: dict[str, Known] = {}
        self._thread: threading.Thread | None = None

    def put(self, item: Item) -> None:
        """Take it in, behind all that came before."""
        if self._thread is None:  # Why not before: of a thousand databases most never accept anything.
            self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
            self._thread.start()
        self._items.put(item)

    async def seal(self) -> None:
        """End the segment that is written; what comes next goes into a new one."""
        if self._thread is not None:
            sealed: asyncio.Future[None] = self._loop.create_future()
            self._items.put(sealed)
            await sealed

    async def close(self) -> None:
        """Make durable what is there, and end the thread."""
        if self._thread is not None:
            self._items.put(None)
            await asyncio.to_thread(self._thread.join)

    # On the thread

    def _run(self) -> None:
        while True:
            items, then = self._next()
            if items:
                self._tell(self._append(items))
            if isinstance(then, asyncio.Future):
                self._close_file()
                self._loop.call_soon_threadsafe(_done, then)
            elif then is None:
                self._close_file()
                return

    def _next(self) -> tuple[list[Item], Item | asyncio.Future[None] | None]:
        """All that has come, up to what ends it: more than a group takes, or a wish that is no item."""
        items: list[Item] = []
        size_bytes = 0
        head = self._items.get()
        while isinstance(head, Item):
            items.append(head)
            size_bytes += len(head.draft.data)
            if len(items) >= GROUP_ENTRIES or size_bytes >= GROUP_BYTES:
                break
            try:
                head = self._items.get_nowait()
            except Empty:
                break
        return items, head

    def _tell(self, report: Report) -> None:
        try:
            self._loop.call_soon_threadsafe(self._report, report)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _append(self, items: list[Item]) -> Report:
        report = Report()
        try:
            if new := self._without_known(items, report):
                self._write(new, report)
        except PondkeeperError as error:
            return Report(failed=[(item, error) for item in items])
        except Exception as error:  # noqa: BLE001  Why: a thread that dies of a fault would leave every client waiting.
            _log.exception("the spool met a fault of the keeper")
            self._close_file()  # Why: nobody knows what it holds now, and a place is given once.
            self._next_place += len(items)
            unknown = OutcomeUnknown("The spool met a fault of the keeper.", private=repr(error))
            return Report(failed=[(item, unknown) for item in items])
        return report

    def _without_known(self, items: list[Item], report: Report) -> list[Item]:
        """The items whose keys are new; of two with one key, the second gets the ticket of the first."""
        keys = [item.key for item in items if item.key is not None]
        known = {**self._ledger.known(keys), **self._unnoted} if keys else {}
        new: list[Item] = []
        for item in items:
            before = known.get(item.key) if item.key is not None else None
            if before is None:
                if item.key is not None:
                    known[item.key] = Known(item.digest, self._next_place + len(new))
                new.append(item)
            elif before.digest != item.digest:
                report.failed.append((item, IdempotencyConflict()))
            else:
                report.known.append((item, before.place))
        return new

    def _write(self, new: list[Item], report: Report) -> None:
        first_place = self._next_place
        try:
            if self._file is None:
                self._file = SegmentFile(self._folder, first_place)
            report.group = self._file.append(first_place, [item.draft for item in new])
        except OutcomeUnknown as unknown:
            self._close_file()
            self._next_place += len(new)  # Why: they may be there after all, and a place is given once.
            _fail(report, new, first_place, unknown)
            return
        except OSError as error:
            _fail(report, new, first_place, _translate(error))
            return
        report.path, report.segment_id, report.appended = self._file.path, self._file.segment_id, new
        self._next_place = report.group.next_place
        self._note_keys(first_place, new)
        if self._file.size_bytes >= SEGMENT_BYTES:
            self._close_file()

    def _note_keys(self, first_place: int, new: list[Item]) -> None:
        keyed = [(item, place) for place, item in enumerate(new, first_place) if item.key is not None]
        self._unnoted |= {item.key: Known(item.digest, place) for item, place in keyed if item.key is not None}
        if not self._unnoted:
            return
        try:
            self._ledger.remember([(key, known.digest, known.place) for key, known in self._unnoted.items()])
        except PondkeeperError as error:  # Why nobody is told: the entries are durable, the keys are noted with the next.
            _log.warning("keys of accepted ingests could not be noted yet", error=error.to_wire(with_private=True))
        else:
            self._unnoted.clear()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _fail(report: Report, new: list[Item], first_place: int, error: PondkeeperError) -> None:
    """They failed, and so have those that were to share a ticket of theirs."""
    sharing = [item for item, place in report.known if place >= first_place]
    report.known = [(item, place) for item, place in report.known if place < first_place]
    report.failed += [(item, error) for item in [*new, *sharing]]


def _done(sealed: asyncio.Future[None]) -> None:
    if not sealed.done():
        sealed.set_result(None)


def _translate(error: OSError) -> PondkeeperError:
    if error.errno in _NO_ROOM:
        return DiskFull("The disk of the spool is full; nothing was accepted.", private=str(error))
    return SpoolUnavailable("The spool cannot be written; nothing was accepted.", private=str(error))

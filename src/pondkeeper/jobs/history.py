"""The keeper's view of what control.db keeps of jobs: totals and marks in memory, everything else in a thread of its own."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from pondkeeper.access.store import Store
from pondkeeper.errors import KeeperStopping, PondkeeperError
from pondkeeper.jobs.records import Mark, Records, Totals, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pondkeeper.files.paths import Home
    from pondkeeper.jobs.definition import Notify
    from pondkeeper.jobs.notices import Notice
    from pondkeeper.jobs.status import RunStatus

LOG_END_BYTES = 16 * 1024
PRUNE_EVERY_S = 3600.0
_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class History:
    """How runs ended, and what is known of jobs between them. Made by `History.open`, ended by `close`.

    `totals` and `marks` are in memory, by the name of the job. `on_notices` is called when there are webhooks to send.
    """

    def __init__(self, thread: ThreadPoolExecutor, store: Store, keep_s: float, now: Callable[[], float]) -> None:
        self.totals: dict[str, Totals] = {}
        self.marks: dict[str, Mark] = {}
        self.notify_of: Callable[[str], Notify | None] = lambda _: None
        self.on_notices: Callable[[], None] = lambda: None
        self._thread = thread
        self._store = store
        self._records = Records(store)
        self._keep_s = keep_s
        self._now = now
        self._data_version = -1
        self._unrecorded: list[tuple[RunStatus, str]] = []
        self._pruned_at = 0.0
        self._is_closed = False

    @staticmethod
    async def open(control_db: Path, keep_s: float, now: Callable[[], float] = time.time) -> History:
        """Open control.db, made where there is none. `keep_s`: how long runs are remembered. Raises ControlUnavailable."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-history")
        try:
            store = await asyncio.get_running_loop().run_in_executor(thread, Store.open, control_db)
        except BaseException:  # Why: whatever ended it, the thread must not outlive the attempt.
            thread.shutdown(wait=False)
            raise
        history = History(thread, store, keep_s, now)
        await history._in_thread(history._load)
        return history

    # Runs

    async def record(self, status: RunStatus, log_end: str) -> bool:
        """Keep how a run ended; told twice, it is kept once. False: control.db cannot be written now, it is tried again.

        Who is told False tells it to the next keeper too, which knows nothing of what this one has yet to do.
        """
        try:
            await self._record(status, log_end)
        except PondkeeperError as error:
            _log.error("how a run ended could not be recorded yet", run=status.run_id, job=status.job, error=str(error))
            self._unrecorded.append((status, log_end))
            return False
        return True

    async def runs(self, job: str | None = None, *, limit: int = 100, before: str | None = None) -> list[dict[str, Any]]:
        """How runs ended (`status_json`), newest first: of one job or all, older than the run `before`."""
        return await self._in_thread(lambda: self._records.runs(job, limit=limit, before=before))

    async def run(self, run_id: str) -> dict[str, Any] | None:
        """How a run ended, with the end of its log as `log_end`; None when nothing is known of it."""
        return await self._in_thread(lambda: self._records.run(run_id))

    # Between runs

    async def refresh(self) -> None:
        """Take in what other processes have changed, do what could not be done before, forget what is too old."""
        while self._unrecorded:
            await self._record(*self._unrecorded[0])
            self._unrecorded.pop(0)
        if self._now() - self._pruned_at > PRUNE_EVERY_S:
            self._pruned_at = self._now()
            await self._in_thread(lambda: self._records.prune(self._now(), keep_s=self._keep_s))
        await self._in_thread(self._load_when_changed)

    async def know(self, jobs: Iterable[str]) -> None:
        """Have a mark for each of these jobs: what happened before a job was known is none of its business."""
        await self.change_marks({job: {} for job in jobs if job not in self.marks})

    async def change_marks(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change what is known of jobs, in one step; a value of `...` is the number of the newest run: up to now."""
        if changes:
            self.marks.update(await self._in_thread(lambda: self._records.change_marks(changes, self._now())))

    async def change_mark(self, job: str, **values: Any) -> Mark:
        """As `change_marks`, of one job."""
        await self.change_marks({job: values})
        return self.marks[job]

    async def set_enabled(self, job: str, enabled: bool | None) -> Mark:
        """Switch a job on or off, whatever the settings file says; None leaves it to the file again."""
        return await self.change_mark(job, enabled=enabled)

    # Webhooks

    async def notify(self, job: str, values: Mapping[str, Any], notices: Iterable[Notice]) -> None:
        """Have these sent, and know by the mark of the job that they are told."""
        marks = await self._in_thread(lambda: self._records.change_marks({job: values}, self._now(), notices))
        self.marks.update(marks)
        self.on_notices()

    async def notices(self) -> list[Waiting]:
        """Webhooks that are not delivered yet, the oldest first."""
        return await self._in_thread(self._records.notices)

    async def settle_notice(self, number: int, due_at: float | None) -> None:
        """A webhook was tried: again at `due_at`, or never more."""
        await self._in_thread(lambda: self._records.settle_notice(number, due_at))

    async def close(self) -> None:
        """Let go of control.db."""
        if self._is_closed:
            return
        for status, log_end in self._unrecorded:
            _log.error("how a run ended is not recorded; the next keeper does it", run=status.run_id, log_end=log_end[-200:])
        await self._in_thread(self._store.close)
        self._is_closed = True
        self._thread.shutdown(wait=False)

    async def _record(self, status: RunStatus, log_end: str) -> None:
        notify = self.notify_of(status.job)
        kept = await self._in_thread(lambda: self._records.record(status, log_end, notify, now=self._now(), keep_s=self._keep_s))
        if kept is not None:
            self.totals[status.job], self.marks[status.job] = kept
            self.on_notices()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._is_closed:
            raise KeeperStopping
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _load_when_changed(self) -> None:
        if self._records.data_version() != self._data_version:
            self._load()

    def _load(self) -> None:
        # Trap: the number first, and what it is about second: a change in between is then seen the next time.
        data_version = self._records.data_version()
        self.totals, self.marks = self._records.totals(), self._records.marks()
        self._data_version = data_version


def record_now(home: Home, status: RunStatus, log_end: str, notify: Notify | None, keep_s: float) -> None:
    """As `History.record`, where no keeper runs. Webhooks that it gives are sent by `notifying.deliver_now`, or the next keeper."""
    with Store.open(home.control_db) as store:
        Records(store).record(status, log_end, notify, now=time.time(), keep_s=keep_s)


def end_of_log(file: Path) -> str:
    """The end of a run's log, from the beginning of a line on."""
    try:
        with file.open("rb") as log:
            size_bytes = log.seek(0, 2)
            log.seek(max(0, size_bytes - LOG_END_BYTES))
            data = log.read(LOG_END_BYTES)
    except OSError:
        return ""
    if size_bytes > LOG_END_BYTES:
        data = data.partition(b"\n")[2] or data
    return data.decode(errors="replace")

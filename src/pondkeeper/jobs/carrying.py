"""The keeper carries runs out: starts what may start, follows what goes on, sets right what was lost, and has the end recorded."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import Home
from pondkeeper.jobs.endings import settle_lost, signal_supervisor
from pondkeeper.jobs.folders import is_alive, read_status, runs_of
from pondkeeper.jobs.following import Follower
from pondkeeper.jobs.keeping import mark_recorded, prune
from pondkeeper.jobs.lineup import Lineup
from pondkeeper.jobs.starting import Started, Starter
from pondkeeper.jobs.status import Phase, RunStatus, status_in
from pondkeeper.workers.side_tasks import SideTasks

if TYPE_CHECKING:
    from pondkeeper.jobs.history import History
    from pondkeeper.settings.tree import RunSettings

TRY_AGAIN_S: Final = 5.0
STOP_MARGIN_S: Final = 5.0
_log = structlog.get_logger(__name__)
Emit = Callable[..., None]


class Carrier:
    """Everything that goes on. `on_ended` is called when a run has ended for good and is recorded."""

    def __init__(self, home: Home, settings: RunSettings, history: History, emit: Emit) -> None:
        self.lineup = Lineup(settings.max_running)
        self.on_ended: Callable[[RunStatus], None] = lambda status: None
        self.unlimited: Callable[[], Iterable[str]] = lambda: ()
        self._home = home
        self._settings = settings
        self._history = history
        self._emit = emit
        self._starter = Starter()
        self._tasks = SideTasks()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._keeper_pipe: tuple[int, int] | None = None
        self._found: list[tuple[RunStatus, bool]] = []

    # From the start of the keeper to its end

    async def load(self) -> None:
        """Know what an earlier keeper has left: queued runs, those that go on, and those that were lost with it."""
        self._found = await asyncio.to_thread(_unfinished, self._home, self._history_has_it)
        for status, lives in self._found:
            if lives or not (status.is_final or status.phase is Phase.QUEUED):
                self.lineup.begin(status)
            elif not status.is_final:
                self.lineup.add(status)

    async def start(self) -> None:
        """Follow what goes on, set right what was lost, and start what may start."""
        if self._settings.when_keeper_dies == "end":
            self._keeper_pipe = os.pipe()
        for status, lives in self._found:
            await self._take_up(status, lives=lives)
        self._found.clear()
        self._tasks.start(self._run())

    async def stop(self) -> None:
        """Start nothing any more. Runs go on without us, or are ended and begin again with the next keeper, as the setting says."""
        self._is_stopping = True
        self._wake.set()
        if self._keeper_pipe is not None:
            os.close(self._keeper_pipe[1])
            await self._wait_for_runs(self._settings.kill_after_s + STOP_MARGIN_S)
            os.close(self._keeper_pipe[0])
        await self._tasks.end()
        await asyncio.to_thread(self._starter.close)

    async def _wait_for_runs(self, timeout_s: float) -> None:
        give_up_at = time.monotonic() + timeout_s
        while self.lineup.running and time.monotonic() < give_up_at:  # noqa: ASYNC110  Why: once, at the very end
            await asyncio.sleep(0.05)

    async def _take_up(self, status: RunStatus, *, lives: bool) -> None:
        if status.is_final:
            await self._record(status)
        elif lives:
            _log.info("run found, and followed", run=status.run_id, job=status.job, phase=status.phase.value)
            if self._keeper_pipe is not None:
                await asyncio.to_thread(signal_supervisor, status)
            self._tasks.start(self._follow(status, None))
        elif status.phase is not Phase.QUEUED:
            await self._settled(status)

    def _history_has_it(self, run_id: str) -> bool:
        return self._home.run(run_id).recorded.exists()

    # What waits

    def add(self, status: RunStatus) -> None:
        """A run that is queued on disk is started when it may."""
        self.lineup.add(status)
        self._tell("run_queued", status)
        self._wake.set()

    def forget(self, status: RunStatus) -> None:
        """A run that waited was cancelled."""
        self.lineup.remove(status.run_id)
        self._tasks.start(self._record(status))

    async def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            now = time.time()
            while status := self._next(now):
                self.lineup.begin(status)
                self._tasks.start(self._carry_out(status))
            due_at = self.lineup.next_due_at(now)
            try:
                async with asyncio.timeout(None if due_at is None else max(0.0, due_at - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next(self, now: float) -> RunStatus | None:
        return None if self._is_stopping else self.lineup.next(now, self.unlimited())

    # What goes on

    async def _carry_out(self, status: RunStatus) -> None:
        keeper_fd = None if self._keeper_pipe is None else self._keeper_pipe[0]
        try:
            process = await asyncio.to_thread(self._starter.start, self._home.run(status.run_id), status.kind, keeper_fd)
        except OSError as error:
            _log.error("a run could not be started; it is tried again", run=status.run_id, job=status.job, error=str(error))
            self._wait_again(status)
            return
        self._tell("run_started", status)
        await self._follow(status, process)

    def _wait_again(self, status: RunStatus) -> None:
        status.not_before = time.time() + TRY_AGAIN_S
        self.lineup.add(status)
        self._wake.set()

    async def _follow(self, status: RunStatus, process: Started | None) -> None:
        paths = self._home.run(status.run_id)
        follower = Follower(paths, process, self._progressed)
        while True:
            try:
                await follower.ended()
                break
            except OSError as error:  # Why not further: no more descriptors, say, is no reason to end the keeper.
                _log.error("a run cannot be seen right now", run=status.run_id, job=status.job, error=str(error))
                await asyncio.sleep(TRY_AGAIN_S)
        await self._settled(status)

    def _progressed(self, status: RunStatus) -> None:
        self.lineup.begin(status)
        self._tell("run_progress", status)

    async def _settled(self, old: RunStatus) -> None:
        """The supervisor has ended: what is to be done with the run, by what it has said last."""
        paths = self._home.run(old.run_id)
        try:
            status = await asyncio.to_thread(settle_lost, paths)
        except OSError as error:
            _log.error("a run could not be looked after; it is tried again", run=old.run_id, job=old.job, error=str(error))
            await asyncio.sleep(TRY_AGAIN_S)
            self._tasks.start(self._follow(old, None))
            return
        if status is None:  # somebody else carries it out: the one that a keeper before us had started
            seen = await asyncio.to_thread(status_in, paths.status_json)
            self.lineup.begin(seen or old)
            await asyncio.sleep(0.1)
            self._tasks.start(self._follow(seen or old, None))
        elif status.is_final:
            await self._record(status)
        elif status.attempt == old.attempt:
            self._starter.refuse(status.kind)
            self._wait_again(status)  # Why after a pause: its supervisor could not even begin.
        else:
            self.add(status)

    async def _record(self, status: RunStatus) -> None:
        """The run has ended for good."""
        paths = self._home.run(status.run_id)
        log_end = await asyncio.to_thread(_end_of_log, paths.log)
        try:
            await self._history.record(status, log_end)
        except PondkeeperError as error:
            _log.error("how a run ended is recorded by the next keeper", run=status.run_id, job=status.job, error=str(error))
        else:
            await asyncio.to_thread(mark_recorded, paths)
        self.lineup.remove(status.run_id)
        self._tell("run_finished", status)
        self.on_ended(status)
        self._wake.set()
        try:
            await asyncio.to_thread(prune, self._home, self._settings)
        except OSError as error:
            _log.error("old runs could not be removed", error=str(error))

    def _tell(self, event: str, status: RunStatus) -> None:
        log = _log.debug if event == "run_progress" else _log.info
        log(event.replace("_", " "), run=status.run_id, job=status.job, phase=status.phase.value, attempt=status.attempt)
        self._emit(event, status.database or "", **told(status))


def told(status: RunStatus) -> dict[str, Any]:
    """A run as an event tells it: no paths, no log."""
    shown: dict[str, Any] = {"run_id": status.run_id, "job": status.job, "of": status.kind, "phase": status.phase.value}
    shown |= {"attempt": status.attempt, "trigger": status.trigger, "done": status.done, "total": status.total, "unit": status.unit}
    shown |= {"rate_per_s": status.rate_per_s, "eta_s": status.eta_s, "rows": status.rows, "versions": status.versions[-1:]}
    return shown | {"error": status.error, "exit_code": status.exit_code}


def _unfinished(home: Home, is_recorded: Callable[[str], bool]) -> list[tuple[RunStatus, bool]]:
    """The runs that somebody has to do something about, oldest first, and whether their supervisor lives."""
    found = []
    for run_id in reversed(runs_of(home.root)):
        lives = is_alive(home.root, run_id)  # Why first: a run that ends in between is then looked at once more, not lost.
        status = read_status(home.root, run_id)
        if status is not None and (not status.is_final or not is_recorded(run_id)):
            found.append((status, lives and not status.is_final))
    return found


def _end_of_log(file: Path) -> str:
    from pondkeeper.jobs.history import end_of_log

    return end_of_log(file)

"""Runs of jobs as their folders show them: seen and followed with the keeper down, and whatever the database is doing."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import RunLost, RunNotFound
from pondkeeper.files.locks import is_flocked
from pondkeeper.jobs.folders import is_alive, is_run_id, log_file, read_status, runs_of
from pondkeeper.jobs.logs import offset_of_tail, read_piece
from pondkeeper.jobs.status import FINAL, Phase, status_json

if TYPE_CHECKING:
    from pondkeeper.files.paths import Home

LOOK_EVERY_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.03  # Why so short: many runs are over in a moment, and somebody waits for each.
NOBODY_S: Final = 30.0

Status = dict[str, Any]


def run_named(home: Home, name: str) -> str:
    """The run of that id; of a job's name its youngest. Raises RunNotFound."""
    if is_run_id(name):
        if read_status(home.root, name) is None:
            raise RunNotFound
        return name
    found = next((status["run_id"] for status in statuses(home, job=name)), None)
    if found is None:
        raise RunNotFound(f"There is no run of a job {name[:80]!r}.")
    return str(found)


def statuses(home: Home, *, job: str | None = None) -> Iterator[Status]:
    """The runs that have a folder, the youngest first."""
    for run_id in runs_of(home.root):
        status = seen(home, run_id)
        if status is not None and (job is None or status["job"] == job):
            yield status


def seen(home: Home, run_id: str) -> Status | None:
    """A run as it stands, with `is_alive`: whether the kernel says that somebody carries it out; None of no run."""
    lives = is_alive(home.root, run_id)  # Why before reading: one that ends in between must not look lost.
    status = read_status(home.root, run_id)
    return None if status is None else status_json(status) | {"is_alive": lives}


def is_lost(status: Status) -> bool:
    """Whether the run has begun, has not ended, and nobody carries it out: a keeper that starts deals with it."""
    return not status["is_alive"] and status["phase"] not in FINAL and status["phase"] != Phase.QUEUED


class RunView:
    """A run that is looked at again and again; with `log` also what it writes."""

    def __init__(self, home: Home, run_id: str, *, log: bool = False) -> None:
        self.status: Status | None = None
        self._home = home
        self._run_id = run_id
        self._log = log_file(home.root, run_id) if log else None
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def news(self) -> Iterator[dict[str, Any]]:
        """`{"log": text}` and `{"run": status}`, what is new of each; nothing where nothing is. Raises RunNotFound."""
        status = seen(self._home, self._run_id)
        if status is None:
            raise RunNotFound
        # Why the log second: what it wrote last is read after its end is known.
        while self._log is not None and (piece := read_piece(self._log, self._offset)):
            self._offset += len(piece)
            yield {"log": self._decoder.decode(piece)}
        if status != self.status:
            self.status = status
            yield {"run": status}


def follow(home: Home, run_id: str, *, log: bool = False, warn: Callable[[str], None] = lambda _: None) -> Iterator[dict[str, Any]]:
    """The news of a run until it has ended; {} now and then when there are none.

    Raises RunLost when it has waited for long for somebody who would carry the run on.
    """
    view = RunView(home, run_id, log=log)
    alone_since: float | None = None
    pause_s = FIRST_PAUSE_S
    while True:
        yield from view.news()
        assert view.status is not None
        if view.status["phase"] in FINAL:
            return
        if view.status["is_alive"] or is_flocked(home.keeper_lock):
            alone_since = None
        elif alone_since is None:
            alone_since = time.monotonic()
            warn("nobody carries the run out now: a keeper that starts does")
        elif time.monotonic() - alone_since > NOBODY_S:
            raise RunLost("Nobody carries the run out, and no keeper runs that would.", remedy="Start the keeper: it goes on with it.")
        yield {}
        time.sleep(pause_s)
        pause_s = min(LOOK_EVERY_S, pause_s * 1.25)


def log(home: Home, run_id: str, *, follow_: bool = False, lines: int | None = None) -> Iterator[bytes]:
    """The log of a run in pieces; with `lines` only its last ones, with `follow_` until the run has ended."""
    file = log_file(home.root, run_id)
    offset = 0 if lines is None else offset_of_tail(file, lines)
    for _ in follow(home, run_id) if follow_ else ({},):  # Why after each look: the last one is after the run's end.
        while piece := read_piece(file, offset):
            offset += len(piece)
            yield piece

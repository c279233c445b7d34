"""What a kind of job is given: its settings, its folders, its database, and the means to say how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import JobInvalid, RunCancelled
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths, Home, RunPaths
from pondkeeper.jobs.plan import RunPlan
from pondkeeper.jobs.status import Phase, RunStatus, write_status
from pondkeeper.kinds.masking import Mask
from pondkeeper.kinds.progress import Pace

if TYPE_CHECKING:
    from pondkeeper.kinds.warehouse import Warehouse

BETWEEN_WRITES_S: Final = 0.2
KEPT_VERSIONS: Final = 50
LAST_WORD_S: Final = 300.0  # Why that long: whoever waits for a full disk to have room again waits for minutes


class RunContext:
    """One attempt of a run, as its kind sees it. Every method is safe in threads, quick, and waits for no disk.

    `stopping` is set when the run is to end (cancelled, out of time, the machine stops): the kind flushes what succeeded
    and returns or raises RunCancelled; after `runs.kill_after_s` it is killed.
    """

    def __init__(self, plan: RunPlan, status: RunStatus, *, hide: Callable[[str], None] = lambda text: None) -> None:
        self.plan = plan
        self.settings: Any = plan.job.settings
        self.folder = plan.folder
        self.paths = RunPaths(plan.folder)
        self.staging: Path = self.paths.staging
        self.home_of_job: Path = Home(plan.home).job(plan.job.name)
        self.stopping = threading.Event()
        self._status = status
        self._hide = hide
        self._mask = Mask()
        self._pace = Pace()
        self._before_waiting = status.phase
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._warehouse: Warehouse | None = None
        for folder in (self.staging, self.home_of_job):
            make_folder(folder, durable=False)
        self._writer = threading.Thread(target=self._write_changes, name="status", daemon=True)
        self._writer.start()

    @property
    def status(self) -> RunStatus:
        """The run as it stands."""
        return self._status

    @property
    def warehouse(self) -> Warehouse:
        """The database of the job. Raises JobInvalid when it has none."""
        with self._lock:
            if self._warehouse is None:
                self._warehouse = self._open_warehouse()
            return self._warehouse

    def _open_warehouse(self) -> Warehouse:
        from pondkeeper.kinds.warehouse import Warehouse  # Why here: jobs without a database need none of it.

        if not self.plan.has_database:
            message = f"The job {self.plan.job.name} has no database."
            raise JobInvalid(message, remedy='Give it one: `database = "…"`.')
        paths = DatabasePaths(file=self.plan.database_file, home=self.plan.home)
        job = self.plan.job
        return Warehouse(
            paths, job=job.name, run_id=self.plan.run_id, staging=self.staging, watcher=self, priority=job.priority
        )

    def phase(self, phase: Phase, message: str = "") -> None:
        """What the run is at from now on; `done` and `total` begin anew."""
        with self._lock:
            if phase != self._status.phase:
                self._status.done, self._status.total, self._pace = 0, None, Pace()
                self._status.rate_per_s = self._status.eta_s = None
            self._status.phase, self._status.message = phase, self._shown(message)
            self._note()

    def progress(self, done: int, total: int | None = None, *, unit: str = "rows", message: str = "") -> None:
        """So much of this phase is done."""
        with self._lock:
            status = self._status
            self._pace.note(done)
            status.done, status.unit, status.message = done, unit, self._shown(message) or status.message
            status.total = total if total is not None else status.total
            rate = status.rate_per_s = self._pace.rate_per_s(done)
            status.eta_s = max(0.0, (status.total - done) / rate) if status.total is not None and rate else None
            self._note()

    def _shown(self, message: str) -> str:
        return self._mask.masked(message) if message else message

    def table(self, name: str, rows: int, size_bytes: int = 0) -> None:
        """So many rows of this table were brought by this run, so far; called again, the newer numbers count."""
        with self._lock:
            tables = self._status.tables
            tables[name] = {"rows": rows, "size_bytes": size_bytes}
            self._status.rows = sum(each["rows"] for each in tables.values())
            self._status.size_bytes = sum(each["size_bytes"] for each in tables.values())
            self._note()

    def detail(self, **values: Any) -> None:
        """What else there is to know, by name: plain data that JSON can say."""
        with self._lock:
            self._status.details.update(values)
            self._note()

    def say(self, text: str) -> None:
        """A line of the log."""
        print(text, flush=True)  # noqa: T201 - stdout of a run is its log

    def secret(self, text: str) -> None:
        """Never show this, from now on: not in the log, not in the status."""
        self._mask.hide(text)
        self._hide(text)

    def check_stopping(self) -> None:
        """Raise RunCancelled when the run is to end."""
        if self.stopping.is_set():
            raise RunCancelled

    # What the warehouse tells of turns (kinds.warehouse.Watcher).

    def waiting(self, lease: dict[str, Any]) -> None:
        """The turn is waited for."""
        with self._lock:
            if self._status.phase not in (Phase.WAITING, Phase.LOADING):
                self._before_waiting = self._status.phase
            self._status.phase, self._status.lease = Phase.WAITING, dict(lease)
            self._note()

    def holding(self) -> None:
        """The turn has come."""
        with self._lock:
            if self._status.phase not in (Phase.WAITING, Phase.LOADING):
                self._before_waiting = self._status.phase
            self._status.phase, self._status.lease = Phase.LOADING, None
            self._note()

    def released(self, held_s: float, version: int | None) -> None:
        """The turn is over."""
        with self._lock:
            self._status.phase, self._status.lease = self._before_waiting, None
            self._status.held_s = round(self._status.held_s + held_s, 6)
            if version is not None and version not in self._status.versions:
                self._status.versions.append(version)
                # Why bounded: a run of change data capture goes on for weeks. The first and the newest are kept.
                del self._status.versions[KEPT_VERSIONS:-KEPT_VERSIONS]
            self._note()

    # The writing of status.json: by a thread, so that who reports progress a thousand times a second pays nothing for it.

    def _note(self) -> None:
        self._status.updated_at = time.time()
        self._changed.set()

    def _write_changes(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            self._write_if_changed()
            self._closing.wait(BETWEEN_WRITES_S)

    def _write_if_changed(self) -> bool:
        """False when the disk is full: it is tried again."""
        with self._lock:
            if not self._changed.is_set():
                return True
            self._changed.clear()
            try:
                write_status(self.paths.status_json, self._status, durable=False)
            except FileNotFoundError:  # Why: somebody has removed the folder, and nobody will ask.
                return True
            except OSError:
                self._changed.set()
                return False
            return True

    def end(self) -> None:
        """The kind has ended: close its database, which publishes what was written where no keeper does."""
        with self._lock:
            warehouse, self._warehouse = self._warehouse, None
        if warehouse is not None:
            warehouse.close()

    def close(self, error: dict[str, Any] | None = None) -> None:
        """Nothing more is reported. `error`: what ended the run."""
        self._closing.set()
        with self._lock:
            self._status.error = self._mask.masked_error(error)
            self._note()
        self._writer.join()
        give_up_at = time.monotonic() + LAST_WORD_S
        while not self._write_if_changed() and time.monotonic() < give_up_at:
            time.sleep(BETWEEN_WRITES_S)

"""Jobs where no keeper runs: what the settings file, control.db and the folders of runs say of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pondkeeper.errors import RunNotFound
from pondkeeper.jobs.describing import describe_job
from pondkeeper.jobs.launching import with_database
from pondkeeper.jobs.loading import job_named, load_jobs
from pondkeeper.jobs.status import FINAL, status_json
from pondkeeper.local.known import databases_of
from pondkeeper.local.runs import statuses
from pondkeeper.settings import Settings

if TYPE_CHECKING:
    from pondkeeper.files.paths import Home
    from pondkeeper.jobs.alone import RunAlone
    from pondkeeper.jobs.definition import Job
    from pondkeeper.jobs.records import Mark, Records

Status = dict[str, Any]


def listed(home: Home) -> dict[str, Any]:
    """The jobs of the settings file, in the shape of the keeper's answer. Raises JobInvalid and SettingInvalid."""
    jobs = _jobs(home)
    with _records(home) as records:
        marks = records.marks() if records is not None else {}
        seen = _Seen(home, records)
        shown = [seen.shown(job, marks, with_settings=False) for job in jobs]
    return {"jobs": shown, "problem": None}


def job(home: Home, name: str) -> dict[str, Any]:
    """One job with its settings. Raises JobNotFound."""
    found = job_named(_jobs(home), name)
    with _records(home) as records:
        marks = records.marks() if records is not None else {}
        return _Seen(home, records).shown(found, marks, with_settings=True)


def history(home: Home, name: str | None, *, limit: int, before: str | None) -> list[Status]:
    """Runs, the youngest first: those with a folder, and those that control.db remembers."""
    found = {each["run_id"]: each for each in statuses(home, job=name) if before is None or each["run_id"] < before}
    with _records(home) as records:
        remembered = records.runs(name, limit=limit, before=before) if records is not None else []
    found = {each["run_id"]: each for each in remembered} | found
    return [found[run_id] for run_id in sorted(found, reverse=True)[:limit]]


def ended_run(home: Home, run_id: str) -> Status:
    """A run that has no folder any more, with the end of its log as `log_end`. Raises RunNotFound."""
    with _records(home) as records:
        found = records.run(run_id) if records is not None else None
    if found is None:
        raise RunNotFound
    return found


def begin(home: Home, name: str) -> RunAlone:
    """A run of the job that this process is to carry out, its unfinished one if there is one. Raises PondkeeperError."""
    from pondkeeper.jobs.alone import RunAlone

    return RunAlone.begin(home, Settings.load(_settings_file(home)), name, _files(home), f"pid {os.getpid()}")


def cancel(home: Home, run_id: str) -> Status:
    """Have a run end that a command, or a keeper that died, has started. Raises RunNotFound."""
    from pondkeeper.jobs.endings import cancel_run

    return status_json(cancel_run(home.root, run_id, f"pid {os.getpid()}"))


def accept_drift(home: Home, name: str) -> list[dict[str, Any]]:
    """Let the changes of the source through that the job asked about: which. Raises PondkeeperError."""
    from pondkeeper.jobs.drift import accept

    return [asdict(each) for each in accept(home, job_named(_jobs(home), name).name)]


def enable(home: Home, name: str, *, enabled: bool) -> None:
    """Switch a job on or off, for the next keeper. Raises JobNotFound."""
    from pondkeeper.access.store import Store
    from pondkeeper.jobs.records import Records

    job_named(_jobs(home), name)
    with Store.open(home.control_db) as store:
        Records(store).change_mark(name, time.time(), enabled=enabled)


def _jobs(home: Home) -> list[Job]:
    """The jobs of the settings file, each with the database that it is for."""
    files = _files(home)
    return [with_database(each, files) for each in load_jobs(_settings_file(home))]


def _settings_file(home: Home) -> Path:
    """What a keeper started here would read."""
    return Path(named) if (named := os.environ.get("PONDKEEPER_CONFIG")) else home.settings_file


def _files(home: Home) -> dict[str, Path]:
    return {paths.name: paths.file for paths in databases_of(home)}


class _Seen:
    """What is known of the runs of all jobs: of each its youngest that goes on, and its youngest that has ended."""

    def __init__(self, home: Home, records: Records | None) -> None:
        self._records = records
        self._current: dict[str, Status] = {}
        self._last: dict[str, Status] = {}
        for status in statuses(home):
            (self._last if status["phase"] in FINAL else self._current).setdefault(status["job"], status)

    def shown(self, job: Job, marks: dict[str, Mark], *, with_settings: bool) -> dict[str, Any]:
        """The job; nothing is due by itself while no keeper runs."""
        mark = marks.get(job.name)
        is_enabled = job.enabled if mark is None or mark.enabled is None else mark.enabled
        last = self._last.get(job.name)
        if last is None and self._records is not None:
            last = next(iter(self._records.runs(job.name, limit=1)), None)
        current = self._current.get(job.name)
        return describe_job(job, is_enabled=is_enabled, next_due_at=None, current=current, last=last, with_settings=with_settings)


@contextmanager
def _records(home: Home) -> Iterator[Records | None]:
    """What control.db remembers; None where there is none yet: looking makes none."""
    if not home.control_db.exists():
        yield None
        return
    from pondkeeper.access.store import Store
    from pondkeeper.jobs.records import Records

    with Store.open(home.control_db) as store:
        yield Records(store)

"""The examination of the jobs: whether the settings file can be read as a keeper reads it, and who can read their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pondkeeper.cli.doctor.finding import Finding, ok, problem, warning
from pondkeeper.errors import JobInvalid, SettingInvalid
from pondkeeper.files.paths import Home
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.kinds_settings.leaves import places
from pondkeeper.jobs.loading import load_jobs

SUBJECT: Final = "jobs"
FILE: Final = "file:"


def examine(home: Home) -> Iterator[Finding]:
    """Everything that can be said of the jobs in the settings file of a home; nothing where there are none."""
    try:
        jobs = load_jobs(home.settings_file)
    except JobInvalid as error:
        for mistake in error.details["problems"]:
            place = f"{home.settings_file.name}, line {mistake['line']}: " if mistake["line"] else ""
            yield problem(SUBJECT, place + mistake["message"], "Correct that line; a keeper that runs goes on with the jobs before it.")
        return
    except SettingInvalid:
        return  # Why: the examination of the settings says so.
    if jobs:
        yield ok(SUBJECT, f"{len(jobs)} in {home.settings_file.name}: {', '.join(job.name for job in jobs)}"[:300])
    for job in jobs:
        for reference in _references(job):
            yield from _file_of_secret(job, reference)


def _references(job: Job) -> Iterator[str]:
    """Where the secrets of a job are found."""
    if job.notify is not None:
        yield from (job.notify.url, job.notify.secret)
    yield from _secrets(job.settings)


def _secrets(settings: Any) -> Iterator[str]:
    for place in places(type(settings)).values():
        value = getattr(settings, place.name)
        if place.leaf.kind == "secret":
            yield value
        elif place.leaf.kind == "tables":
            for each in value:
                yield from _secrets(each)


def _file_of_secret(job: Job, reference: str) -> Iterator[Finding]:
    if not reference.startswith(FILE):
        return
    path = Path(reference.removeprefix(FILE))
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield problem(SUBJECT, f"{job.name}: {path} cannot be read: {error.strerror}", "Put the secret there, with mode 0600.")
        return
    if mode & 0o077:
        yield warning(SUBJECT, f"{job.name}: other users can get at {path}", "chmod 0600, and think about who may have read it.")

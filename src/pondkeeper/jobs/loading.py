"""Jobs from the settings file: `[jobs.NAME]`, checked to the last key, with the line of whatever is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import JobInvalid, JobNotFound
from pondkeeper.files.paths import HOME_NAME
from pondkeeper.jobs.definition import Job, by_name
from pondkeeper.jobs.job_keys import JobKeys
from pondkeeper.jobs.kinds_settings import KINDS
from pondkeeper.jobs.kinds_settings.leaves import places
from pondkeeper.jobs.tables import Problem, Tables
from pondkeeper.settings.leaves import nearest
from pondkeeper.settings.loading import JOBS
from pondkeeper.settings.toml_file import SettingsFile, read_settings_file

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_JOBS: Final = 1000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\Z")
_COMMON: Final = frozenset(name for place in places(JobKeys).values() for name in (place.name, place.short) if name)


def load_jobs(file: Path | None) -> tuple[Job, ...]:
    """The jobs of a settings file, in its order; none when there is no such file. Raises JobInvalid or SettingInvalid."""
    written = read_settings_file(file, must_exist=False) if file is not None else None
    return () if written is None else _Loader(written).load()


def job_named(jobs: Iterable[Job], name: str) -> Job:
    """The job of that name. Raises JobNotFound, which names the nearest."""
    known = by_name(jobs)
    if name in known:
        return known[name]
    near = nearest(name, list(known))
    shown = name[:80] if name.isprintable() else ascii(name[:80])
    raise JobNotFound(f"There is no job {shown!r}" + (f"; did you mean {near!r}?" if near else "."), nearest=near)


def folder_of_jobs(file: Path) -> Path:
    """What paths in the jobs of that file are relative to: its folder, or the one that holds the home that it lies in."""
    folder = file.absolute().parent
    return folder.parent if folder.name == HOME_NAME else folder


class _Loader:
    def __init__(self, written: SettingsFile) -> None:
        self._written = written
        self._tables = Tables(written, folder_of_jobs(written.path))

    def load(self) -> tuple[Job, ...]:
        content = self._written.table.get(JOBS, {})
        if not isinstance(content, Mapping) or not all(isinstance(table, Mapping) for table in content.values()):
            self._tables.refuse(_first_no_table(content), "a job is a table: write [jobs.NAME] and its keys")
            raise self._invalid()
        if len(content) > MAX_JOBS:
            self._tables.refuse(JOBS, f"there are {len(content)} jobs, and {MAX_JOBS} is the most")
        jobs = [job for name, table in content.items() if (job := self._job(name, table)) is not None]
        self._check_after(by_name(jobs), list(content))
        if self._tables.problems:
            raise self._invalid()
        return tuple(jobs)

    def _job(self, name: str, table: Mapping[str, Any]) -> Job | None:
        key = f"{JOBS}.{name}"
        if not _NAME.match(name):
            self._tables.refuse(key, f"{name[:80]!r} cannot be the name of a job: letters, digits, `_` and `-`, at most 63")
            return None
        common = {word: value for word, value in table.items() if word in _COMMON}
        if isinstance(common.get("notify"), str):
            common["notify"] = {"url": common["notify"]}
        keys = self._tables.read(JobKeys, common, key)
        kind = table.get("kind")
        settings = self._settings(kind, {word: value for word, value in table.items() if word not in _COMMON}, key)
        if keys is None or settings is None:
            return None
        return Job(
            name=name,
            kind=keys.kind,
            database=keys.database or None,
            settings=settings,
            schedule=keys.made_schedule(),
            after=keys.after,
            timeout_s=keys.timeout_s,
            retries=keys.retries,
            retry_wait_s=keys.retry_wait_s,
            priority=keys.priority,
            notify=keys.notify.made() if keys.notify else None,
            missed=keys.missed,
            enabled=keys.enabled,
            line=self._written.line(key) or 0,
        )

    def _settings(self, kind: Any, table: Mapping[str, Any], key: str) -> Any:
        if not isinstance(kind, str):
            return None  # Why: the common keys have said so already.
        if kind not in KINDS:
            near = nearest(kind, list(KINDS))
            hint = f"; did you mean {near!r}?" if near else f": {', '.join(KINDS)}"
            self._tables.refuse(f"{key}.kind", f"there is no kind {kind[:80]!r}{hint}")
            return None
        return self._tables.read(KINDS[kind], table, key, hints=_COMMON)

    def _check_after(self, jobs: dict[str, Job], names: list[str]) -> None:
        for job in jobs.values():
            for before in job.after:
                if before not in names:
                    near = nearest(before, names)
                    hint = f"; did you mean {near!r}?" if near else ""
                    self._tables.refuse(f"{JOBS}.{job.name}.after", f"`after` names {before[:80]!r}, and there is no such job{hint}")
        seen: set[str] = set()
        for job in jobs.values():
            if job.name not in seen and (circle := _circle(jobs, job.name)):
                seen |= set(circle)
                self._tables.refuse(f"{JOBS}.{circle[0]}.after", f"`after` goes in a circle: {' after '.join(circle)}")

    def _invalid(self) -> JobInvalid:
        problems = sorted(self._tables.problems, key=_line)
        first = problems[0]
        place = self._written.path.name + (f", line {first.line}" if first.line else "")
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        return JobInvalid(
            f"{place}: {first.message}{more}",
            private=str(self._written.path),
            file=self._written.path.name,
            line=first.line,
            problems=[{"line": problem.line, "key": problem.key[:200], "message": problem.message} for problem in problems[:100]],
        )


def _line(problem: Problem) -> int:
    return problem.line or 0


def _first_no_table(content: Any) -> str:
    if not isinstance(content, Mapping):
        return JOBS
    return f"{JOBS}.{next(name for name, table in content.items() if not isinstance(table, Mapping))}"


def _circle(jobs: dict[str, Job], start: str) -> list[str]:
    """The way from `start` back to itself by `after`; empty when there is none. It ends with `start`."""
    ways = [[start]]
    visited = set()
    while ways:
        way = ways.pop()
        for before in jobs[way[-1]].after if way[-1] in jobs else ():
            if before == start:
                return [*way, start]
            if before not in visited:
                visited.add(before)
                ways.append([*way, before])
    return []

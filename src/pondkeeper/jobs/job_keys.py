"""The keys that every `[jobs.NAME]` may have, whatever its kind; `notify` may be the URL alone, or a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final
from urllib.parse import urlsplit

from pondkeeper.files.paths import is_database_name
from pondkeeper.jobs.definition import BACKGROUND, MISSED, ONCE, PRIORITIES, Notify, Schedule
from pondkeeper.jobs.schedules import ScheduleUnusable, check_schedule, check_timezone
from pondkeeper.jobs.secrets import is_reference
from pondkeeper.settings.leaves import nearest
from pondkeeper.settings.tree import DAY_S, setting

FAILURE: Final = "failure"
RECOVERY: Final = "recovery"
STALE: Final = "stale"
OCCASIONS: Final = (FAILURE, RECOVERY, STALE)
YEAR_S: Final = 400 * DAY_S


@dataclass(frozen=True, slots=True)
class NotifyKeys:
    """Whom to tell of a job: a webhook."""

    required: ClassVar[tuple[str, ...]] = ("url",)

    url: str = setting(
        "", "The webhook: a URL, or where that is a secret `env:NAME` or `file:/path`. It gets JSON by POST, with a `text` for people."
    )
    on: tuple[str, ...] = setting(
        OCCASIONS,
        "Of what: `failure` (a run failed, its retries too), `recovery` (one succeeded after that, or data is fresh again), "
        "`stale` (the last success is older than `stale_after`).",
    )
    stale_after_s: float | None = setting(
        None, "From which age of the last success on the data is stale; without it, it never is.", unit="s", minimum=1, maximum=YEAR_S
    )
    remind_s: float = setting(
        DAY_S, "While every run fails, the failure is told again this often; 0 tells only the first.", unit="s", minimum=0, maximum=YEAR_S
    )
    secret: str = setting(
        "",
        "`env:NAME` or `file:/path` of a key that what is sent is signed with: `Pondkeeper-Signature: t=…,v1=…`, HMAC-SHA256.",
        unit="secret",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together."""
        if not is_reference(self.url) and not _is_url(self.url):
            yield "url", "`url` is an address such as https://hooks.example.com/x, or env:NAME, or file:/path"
        for word in self.on:
            if word not in OCCASIONS:
                near = nearest(word, list(OCCASIONS))
                yield "on", f"{word[:80]!r} is not one of {', '.join(OCCASIONS)}" + (f"; did you mean {near!r}?" if near else "")
        if not self.on:
            yield "on", "`on` names nothing to tell of"

    def made(self) -> Notify:
        """What the job keeps of it."""
        return Notify(self.url, self.on, self.stale_after_s, self.remind_s or None, self.secret)


@dataclass(frozen=True, slots=True)
class JobKeys:
    """What every job has."""

    required: ClassVar[tuple[str, ...]] = ("kind",)

    kind: str = setting("", "What it is: command, dbt, dlt, download, postgres or python.")
    database: str = setting("", "The database it works on, by its name (the file's, without `.duckdb`); empty is the only one there is.")
    schedule: str = setting(
        "",
        'When it runs by itself: cron ("30 5 * * 1-5"), "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "every 30s", or '
        '"always" (again as soon as it has ended). Empty: only when somebody or another job starts it.',
    )
    timezone: str = setting("UTC", "The time zone that cron is meant in, such as Europe/Berlin; summer time is taken care of.")
    after: tuple[str, ...] = setting((), "Jobs after which it runs: when each of them has succeeded since the last time.")
    missed: str = setting(
        ONCE, "What becomes of times that passed while no keeper ran: `once` makes up for all of them by one run, `skip` by none.",
        choices=MISSED,
    )  # fmt: skip
    timeout_s: float | None = setting(
        None, "How long one attempt may take; then it is ended, and has failed.", unit="s", minimum=0.1, maximum=YEAR_S
    )
    retries: int = setting(0, "How often a failed run is tried again.", minimum=0, maximum=1000)
    retry_wait_s: float = setting(
        10.0, "How long until the first retry; doubled for each further one, up to 10 minutes.", unit="s", minimum=0, maximum=600
    )
    priority: str = setting(BACKGROUND, "Of its writes, and in the queue of runs.", choices=PRIORITIES)
    enabled: bool = setting(True, "Whether it runs by itself; `pondkeeper job enable` and `disable` win over it.")
    notify: NotifyKeys | None = field(
        default=None, metadata={"help": 'Whom to tell of it: `notify = "https://hooks.example.com/x"`, or a table.'}
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together."""
        if self.database and not is_database_name(self.database):
            yield "database", f"{self.database[:80]!r} cannot be the name of a database"
        try:
            check_timezone(self.timezone)
        except ScheduleUnusable as error:
            yield "timezone", f"`timezone`: {error}"
            return
        try:
            if self.schedule:
                check_schedule(Schedule(self.schedule, self.timezone))
        except ScheduleUnusable as error:
            yield "schedule", f"`schedule`: {error}"

    def made_schedule(self) -> Schedule | None:
        """The schedule, where there is one."""
        return Schedule(" ".join(self.schedule.split()), self.timezone) if self.schedule else None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False

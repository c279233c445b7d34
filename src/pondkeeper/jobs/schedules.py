"""When a schedule comes: cron in a time zone, `@daily`, `every 30s`, `always`. Moments are seconds since the epoch."""

from __future__ import annotations

import math
import zoneinfo
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Final

from cronsim import CronSim, CronSimError

from pondkeeper.settings.leaves import nearest
from pondkeeper.settings.values import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pondkeeper.jobs.definition import Schedule

ALWAYS: Final = "always"
LEAST_INTERVAL_S: Final = 1.0
MOST_INTERVAL_S: Final = 400 * 86_400.0
CRON_FIELDS: Final = 5
ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EXPECTED: Final = 'cron such as "30 5 * * *", "@daily", "every 30s" or "always"'


class ScheduleUnusable(Exception):
    """What was written is no schedule; the text says what was expected."""


def check_schedule(schedule: Schedule) -> None:
    """Raises ScheduleUnusable when it is none, when it never comes, or when nobody knows the time zone."""
    check_timezone(schedule.timezone)
    if schedule.text == ALWAYS or _interval_s(schedule) is not None:
        return
    if next_after(schedule, datetime.now(UTC).timestamp()) is None:
        raise ScheduleUnusable(f"{schedule.text!r} never comes: no date fits it")


def check_timezone(name: str) -> None:
    """Raises ScheduleUnusable when there is no such time zone."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # Why OSError: "Europe" is a folder of the database.
        near = nearest(name, sorted(zoneinfo.available_timezones()))
        hint = f"; did you mean {near!r}?" if near else ""
        raise ScheduleUnusable(f"there is no time zone {name[:80]!r}{hint}") from None


def next_after(schedule: Schedule, moment: float) -> float | None:
    """The first moment after `moment` at which it comes; None for `always`, and for what never comes.

    A time that the clocks skip in spring comes right after the gap; one that they repeat in autumn comes once, unless
    the schedule is by the minute or by the hour, which go on evenly. So does Debian's cron.
    """
    if schedule.text == ALWAYS:
        return None
    interval_s = _interval_s(schedule)
    if interval_s is not None:
        return (math.floor(moment / interval_s) + 1) * interval_s
    zone: tzinfo = zoneinfo.ZoneInfo(schedule.timezone)
    try:
        times: Iterator[datetime] = iter(CronSim(_cron(schedule), datetime.fromtimestamp(moment, zone)))
    except CronSimError as error:
        raise ScheduleUnusable(f"{schedule.text[:80]!r} is not {_EXPECTED} ({str(error).lower()})") from error
    # Trap: asked within the hour that the clocks repeat, it also gives times of its first pass, which are over.
    return next((time for found in times if (time := found.timestamp()) > moment), None)


def _cron(schedule: Schedule) -> str:
    text = ALIASES.get(schedule.text.lower(), schedule.text)
    if len(text.split()) != CRON_FIELDS:
        raise ScheduleUnusable(f"{schedule.text[:80]!r} is not {_EXPECTED}; cron has five fields: minute hour day month weekday")
    return text


def _interval_s(schedule: Schedule) -> float | None:
    """The seconds of `every 30s`; None for what is not written so."""
    words = schedule.text.split()
    if not words or words[0] != "every":
        return None
    try:
        interval_s = parse_duration("".join(words[1:]))
    except ValueError:
        raise ScheduleUnusable(f"{schedule.text[:80]!r} is not {_EXPECTED}") from None
    if not LEAST_INTERVAL_S <= interval_s <= MOST_INTERVAL_S:
        raise ScheduleUnusable(f"{schedule.text[:80]!r}: an interval is between one second and 400 days")
    return interval_s

"""Which versions stay: everything for a while, then one an hour, then one a day; and always the newest.

Of an hour (a day) stays its last version, by version number: clocks may go back, versions do not. The last version of a
day is also the last of its hour, so whatever is kept later was kept before, and pruning often keeps what pruning once keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pondkeeper.archive.manifest import ArchivedVersion

HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass(frozen=True)
class Retention:
    """For how long, in seconds of age: every version, the last of each hour, the last of each day (UTC)."""

    everything_s: float = DAY_S
    hourly_s: float = 7 * DAY_S
    daily_s: float = 30 * DAY_S


def kept(versions: Collection[ArchivedVersion], now: datetime, retention: Retention) -> set[ArchivedVersion]:
    """The versions of one database that stay. Those from the future (a clock was wrong) stay."""
    if not versions:
        return set()
    younger = {found for found in versions if _age_s(found, now) <= retention.everything_s}
    hourly = {found for found in _last_of_each(versions, HOUR_S) if _age_s(found, now) <= retention.hourly_s}
    daily = {found for found in _last_of_each(versions, DAY_S) if _age_s(found, now) <= retention.daily_s}
    return {max(versions)} | younger | hourly | daily


def _age_s(version: ArchivedVersion, now: datetime) -> float:
    return (now - version.created_at).total_seconds()


def _last_of_each(versions: Iterable[ArchivedVersion], seconds: int) -> Iterable[ArchivedVersion]:
    last: dict[int, ArchivedVersion] = {}
    for version in versions:
        period = int(version.created_at.astimezone(UTC).timestamp()) // seconds
        last[period] = max(version, last.get(period, version))
    return last.values()

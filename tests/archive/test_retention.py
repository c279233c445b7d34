"""Which versions stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.archive.manifest import ArchivedVersion
from pondkeeper.archive.retention import DAY_S, HOUR_S, Retention, kept

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
RETENTION = Retention()


def version(number: int, age_s: float) -> ArchivedVersion:
    return ArchivedVersion(number, NOW - timedelta(seconds=age_s), "sales")


def test_a_month_of_versions_each_quarter_of_an_hour() -> None:
    """A day whole, six days of hours, the rest of the month of days, each by its last version; and nothing older."""
    every = 900
    versions = [version(number, (40 * DAY_S) - number * every) for number in range(40 * DAY_S // every + 1)]
    stay = sorted(kept(versions, NOW, RETENTION))
    ages = [(NOW - found.created_at).total_seconds() for found in stay]
    assert len([age for age in ages if age <= DAY_S]) == DAY_S // every + 1
    hourly = [found for found, age in zip(stay, ages, strict=True) if DAY_S < age <= 7 * DAY_S]
    assert len(hourly) == 6 * 24
    assert {found.created_at.minute for found in hourly} == {45}
    daily = [found for found, age in zip(stay, ages, strict=True) if age > 7 * DAY_S]
    assert len(daily) == 23
    assert {(found.created_at.hour, found.created_at.minute) for found in daily} == {(23, 45)}


def test_the_newest_stays_however_old_it_is() -> None:
    assert kept([version(1, 90 * DAY_S), version(2, 80 * DAY_S)], NOW, RETENTION) == {version(2, 80 * DAY_S)}
    assert kept([], NOW, RETENTION) == set()


def test_newest_is_the_highest_number_also_when_the_clock_went_back() -> None:
    back = [version(1, 60 * DAY_S), version(2, 70 * DAY_S)]
    assert kept(back, NOW, RETENTION) == {back[1]}


def test_the_future_stays() -> None:
    future = [version(1, -2 * HOUR_S), version(2, -HOUR_S), version(3, 0)]
    assert kept(future, NOW, Retention(0, 0, 0)) == set(future)


AGES = st.lists(st.floats(0, 50 * DAY_S), max_size=60).map(sorted)


@given(AGES, st.lists(st.floats(0, 20 * DAY_S), max_size=5))
def test_pruning_often_keeps_what_pruning_once_keeps(ages: list[float], pauses_s: list[float]) -> None:
    """Whatever is kept later was kept before: nothing depends on how often somebody prunes."""
    versions = [version(number, age_s) for number, age_s in enumerate(reversed(ages))]
    often, now = set(versions), NOW
    for pause_s in pauses_s:
        often = kept(often, now, RETENTION)
        now += timedelta(seconds=pause_s)
    assert kept(often, now, RETENTION) == kept(versions, now, RETENTION)


@given(AGES)
def test_every_moment_of_the_week_has_a_version_within_its_hour(ages: list[float]) -> None:
    """For each version that goes, a later one of the same hour stays (the same day, in the month)."""
    versions = [version(number, age_s) for number, age_s in enumerate(reversed(ages))]
    stay = kept(versions, NOW, RETENTION)
    for gone in set(versions) - stay:
        age_s = (NOW - gone.created_at).total_seconds()
        assert age_s > DAY_S
        if age_s <= 7 * DAY_S:
            assert any(_hour(found) == _hour(gone) and found > gone for found in stay)
        elif age_s <= 30 * DAY_S:
            assert any(found.created_at.date() == gone.created_at.date() and found > gone for found in stay)


def _hour(found: ArchivedVersion) -> tuple[object, int]:
    return found.created_at.date(), found.created_at.hour

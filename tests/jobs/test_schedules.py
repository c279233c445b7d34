"""When a schedule comes, also where clocks are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.jobs.definition import Schedule
from pondkeeper.jobs.schedules import ALIASES, check_schedule, next_after

BERLIN = "Europe/Berlin"


def moment(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def times(text: str, zone: str, start: str, count: int) -> list[str]:
    """The next times of a schedule, in UTC."""
    found, at = [], moment(start)
    for _ in range(count):
        following = next_after(Schedule(text, zone), at)
        assert following is not None
        at = following
        found.append(datetime.fromtimestamp(at, UTC).strftime("%d %H:%M"))
    return found


def test_a_zone_decides_what_five_o_clock_is() -> None:
    """In summer Berlin is two hours ahead."""
    assert times("0 5 * * *", BERLIN, "2026-07-01T00:00", 2) == ["01 03:00", "02 03:00"]
    assert times("0 5 * * *", "UTC", "2026-07-01T00:00", 2) == ["01 05:00", "02 05:00"]


def test_a_time_that_the_clocks_skip_comes_right_after_the_gap() -> None:
    """On 29 March 2026 Berlin has no 02:30: it comes at 03:00, and the day after at 02:30 again."""
    assert times("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["29 01:00", "30 00:30"]


def test_a_time_that_the_clocks_repeat_comes_once() -> None:
    """On 25 October 2026 Berlin has 02:30 twice: at 00:30 and at 01:30 UTC. Asked in between, it is the next day's."""
    assert times("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["25 00:30", "26 01:30"]
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:10", 1) == ["26 01:30"]


@pytest.mark.parametrize(("text", "step_s"), [("*/10 * * * *", 600), ("0 * * * *", 3600), ("* * * * *", 60)])
@pytest.mark.parametrize("start", ["2026-03-29T00:00", "2026-10-25T00:00"])
def test_by_the_minute_and_by_the_hour_go_on_evenly(text: str, step_s: int, start: str) -> None:
    """Neither gap nor repetition shows in them."""
    at = moment(start)
    for number in range(1, 12):
        following = next_after(Schedule(text, BERLIN), at)
        assert following == moment(start) + number * step_s
        at = following


@given(
    st.integers(int(moment("2026-01-01T00:00")), int(moment("2027-12-31T00:00"))),
    st.sampled_from(["30 2 * * *", "15 */6 * * 1-5", "0 3 31 * *", "* 2 * * *", "every 7m", "@monthly"]),
)
def test_what_comes_lies_ahead_and_nothing_lies_between(at: int, text: str) -> None:
    """The next one of a moment just before the next one is the same: nothing is passed over, nothing comes twice."""
    schedule = Schedule(text, BERLIN)
    following = next_after(schedule, at)

    assert following is not None
    assert following > at
    assert next_after(schedule, (at + following) / 2) == following
    assert next_after(schedule, following) != following


def test_intervals_are_the_same_whoever_counts() -> None:
    """They are multiples since the epoch, so a restart does not move them."""
    assert times("every 30s", "UTC", "2026-01-01T00:00:10", 2) == ["01 00:00", "01 00:01"]
    assert next_after(Schedule("every 90 s"), 0.0) == 90.0
    assert next_after(Schedule("every 1.5h"), 5400.0) == 10_800.0


@pytest.mark.parametrize("text", [*ALIASES, "0 0 29 2 *", "0 9 * * MON#1", "0 0 L * *", "always", "every 5m", "@DAILY"])
def test_what_can_be_written(text: str) -> None:
    """Leap days, the first Monday, the last day of a month."""
    check_schedule(Schedule(text, BERLIN))


def test_always_has_no_time() -> None:
    """It is due as soon as the last run has ended, which no clock knows."""
    assert next_after(Schedule("always"), 0.0) is None

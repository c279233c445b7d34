"""What is started when: by the clock, after each other, after a restart, and not twice."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pondkeeper.access.store import Store
from pondkeeper.errors import DatabaseNotFound, JobInvalid
from pondkeeper.jobs.book import JobBook
from pondkeeper.jobs.clock import TRY_AGAIN_S, JobClock
from pondkeeper.jobs.history import History
from pondkeeper.jobs.records import Records
from pondkeeper.jobs.status import Phase
from tests.jobs.conftest import HandClock
from tests.jobs.ended import ended
from tests.support.keeper import wait_until

NOON = datetime.fromisoformat("2026-11-21T12:00:00+00:00").timestamp()


class House:
    """A clock with its book, and what it has started."""

    def __init__(self, file: Path, history: History, clock: HandClock) -> None:
        self.file = file
        self.history = history
        self.clock = clock
        self.started: list[tuple[str, str]] = []
        self.busy: set[str] = set()
        self.refuse: Exception | None = None
        clock.at = NOON

    async def open(self, text: str) -> House:
        """Begin with these jobs, as a keeper does when it starts."""
        self.write(text)
        self.book = await JobBook.open(self.file, self.history)
        self.of = JobClock(self.book, self.history, self._trigger, self.busy.__contains__, self.clock)
        await self.of.look()
        return self

    def write(self, text: str) -> None:
        """Change the file, in a way that shows."""
        temp = self.file.with_suffix(".new")
        temp.write_text("\n".join(f'{part}\nkind = "command"\ncommand = ["x"]' if part.startswith("[jobs.") else part for part in text.splitlines()))
        temp.replace(self.file)

    async def at(self, text: str) -> list[tuple[str, str]]:
        """Look at that time; what was started since the last look."""
        self.clock.at = datetime.fromisoformat(f"2026-11-{text}+00:00").timestamp()
        self.started.clear()
        await self.of.look()
        return list(self.started)

    async def ends(self, job: str, phase: Phase = Phase.DONE) -> None:
        """A run of that job has ended."""
        status = ended(job, phase, at=self.clock.at)
        await self.history.record(status, "")
        self.of.ended(status)

    async def _trigger(self, name: str, *, trigger: str) -> Any:
        if self.refuse:
            raise self.refuse
        self.started.append((name, trigger))


@pytest.fixture
def house(tmp_path: Path, history: History, clock: HandClock) -> House:
    return House(tmp_path / "pondkeeper.toml", history, clock)


HOURLY = '[jobs.a]\nschedule = "@hourly"'


async def test_a_schedule_is_kept_once_each_time(house: House) -> None:
    """Looked at as often as one likes, each hour gives one run."""
    await house.open(HOURLY)

    assert await house.at("21T12:59") == []
    assert await house.at("21T13:00") == [("a", "schedule")]
    assert await house.at("21T13:00") == []
    assert await house.at("21T13:59") == []
    assert await house.at("21T14:00") == [("a", "schedule")]
    job = house.book.get("a")
    assert house.of.next_due_at(job) == NOON + 3 * 3600


@pytest.mark.parametrize(("missed", "started"), [("once", [("a", "schedule")]), ("skip", [])])
async def test_what_was_missed_is_made_up_for_once_or_not(house: House, missed: str, started: list[Any]) -> None:
    """Five hours without a keeper are one run, or none; the next hour is kept all the same."""
    text = HOURLY + f'\nmissed = "{missed}"'
    await house.open(text)
    await house.open(text)  # a new keeper, with the same control.db

    assert await house.at("21T17:30") == started
    assert await house.at("21T17:31") == []
    assert await house.at("21T18:00") == [("a", "schedule")]


async def test_a_time_that_has_just_passed_was_not_missed(house: House) -> None:
    """A keeper that starts at ten seconds past six takes the run of six o'clock, also with `skip`."""
    await house.open(HOURLY + '\nmissed = "skip"')

    assert await house.at("21T17:00:10") == [("a", "schedule")]


async def test_a_restart_does_not_run_it_again(house: House) -> None:
    """What was started is known to the next keeper."""
    await house.open(HOURLY)
    assert await house.at("21T13:00") == [("a", "schedule")]
    house.started.clear()
    at = house.clock.at
    await house.open(HOURLY)
    house.clock.at = at
    await house.of.look()

    assert house.started == []


async def test_a_new_or_changed_schedule_begins_now(house: House) -> None:
    """A job that is written at noon is not behind by all hours of its life."""
    await house.open(HOURLY)
    house.write('[jobs.a]\nschedule = "*/5 * * * *"\n[jobs.b]\nschedule = "@hourly"')

    assert await house.at("21T12:58") == []
    assert await house.at("21T13:00") == [("a", "schedule"), ("b", "schedule")]


async def test_who_is_switched_off_is_not_started_nor_behind_afterwards(house: House) -> None:
    """By `disable` and by the file alike."""
    await house.open(HOURLY)
    await house.history.set_enabled("a", False)
    assert await house.at("21T13:00") == []
    assert house.of.next_due_at(house.book.get("a")) is None
    await house.history.set_enabled("a", True)
    assert await house.at("21T13:30") == []
    assert await house.at("21T14:00") == [("a", "schedule")]
    await house.history.set_enabled("a", None)
    house.write(HOURLY + "\nenabled = false")
    assert await house.at("21T15:00") == []
    house.write(HOURLY)
    assert await house.at("21T15:30") == []
    assert await house.at("21T16:00") == [("a", "schedule")]


async def test_a_clock_that_was_wrong_does_not_stop_a_schedule(house: House) -> None:
    """A machine that thought it was 2030, and is put right; one put back by less than a minute repeats nothing."""
    await house.open(HOURLY)
    assert await house.at("21T13:00") == [("a", "schedule")]
    house.clock.at = NOON + 4 * 365 * 86_400
    await house.of.look()

    assert await house.at("21T13:10") == []
    assert await house.at("21T14:00") == [("a", "schedule")]
    house.clock.at -= 30
    await house.of.look()
    assert house.started == [("a", "schedule")]
    assert await house.at("21T14:01") == []


AFTER = '[jobs.a]\n[jobs.b]\n[jobs.c]\nafter = ["a", "b"]\n[jobs.d]\nafter = ["c"]'


async def test_a_job_runs_after_all_of_the_others_have_succeeded(house: House) -> None:
    """Each of them anew, since it last ran because of them; a failure is no success."""
    await house.open(AFTER)
    await house.ends("a")
    assert await house.at("21T12:01") == []
    await house.ends("b", Phase.FAILED)
    assert await house.at("21T12:02") == []
    await house.ends("b")
    assert await house.at("21T12:03") == [("c", "after")]
    assert await house.at("21T12:04") == []
    await house.ends("c")
    assert await house.at("21T12:05") == [("d", "after")]
    await house.ends("a")
    await house.ends("a")
    assert await house.at("21T12:06") == []
    await house.ends("b")
    assert await house.at("21T12:07") == [("c", "after")]


async def test_what_a_keeper_died_before_starting_is_started_by_the_next(house: House) -> None:
    """The success is in control.db; who runs after it is found there."""
    await house.open(AFTER)
    await house.ends("a")
    await house.ends("b")
    await house.open(AFTER)

    assert house.started == [("c", "after")]


async def test_a_success_without_this_keeper_starts_what_comes_after(house: House) -> None:
    """A run of the command line alone ends and is recorded by another process: the clock sees it in control.db."""
    await house.open('[jobs.a]\n[jobs.b]\nafter = ["a"]')
    with Store.open(house.history._store.path) as store:
        Records(store).record(ended("a", at=house.clock.at), "", None, now=house.clock.at, keep_s=1e9)

    assert await house.at("21T12:01") == [("b", "after")]


async def test_successes_before_it_was_known_do_not_start_a_job(house: House) -> None:
    """Nor those while it was switched off."""
    await house.open("[jobs.a]")
    await house.ends("a")
    house.write('[jobs.a]\n[jobs.e]\nafter = ["a"]')
    assert await house.at("21T12:01") == []
    await house.history.set_enabled("e", False)
    await house.at("21T12:02")
    await house.ends("a")
    assert await house.at("21T12:03") == []
    await house.history.set_enabled("e", True)
    assert await house.at("21T12:04") == []
    await house.ends("a")
    assert await house.at("21T12:05") == [("e", "after")]


async def test_always_is_again_when_it_has_ended(house: House) -> None:
    """Not while it runs or waits, and with longer rests the more often it fails."""
    await house.open('[jobs.a]\nschedule = "always"\nretry_wait_s = 60')
    assert house.started == [("a", "schedule")]
    house.busy.add("a")
    assert await house.at("21T12:05") == []
    house.busy.clear()
    await house.ends("a")
    assert await house.at("21T12:06") == [("a", "schedule")]
    for _ in range(2):
        await house.ends("a", Phase.FAILED)
    assert await house.at("21T12:07") == []
    assert await house.at("21T12:09") == [("a", "schedule")]


async def test_who_cannot_be_started_is_tried_again(house: House) -> None:
    """A database that is not there yet, a control.db that is locked: nothing is lost, and the others are started."""
    await house.open(HOURLY + '\n[jobs.b]\nschedule = "@hourly"')
    house.refuse = DatabaseNotFound()
    assert await house.at("21T13:00") == []
    house.refuse = None
    house.clock.at += TRY_AGAIN_S
    await house.of.look()

    assert house.started == [("a", "schedule"), ("b", "schedule")]


async def test_a_broken_file_leaves_the_old_jobs(house: House) -> None:
    """And says what is wrong, until it is mended; a keeper does not start on it."""
    await house.open(HOURLY)
    house.file.write_text('[jobs.a]\nkind = "comand"\n')
    assert await house.at("21T13:00") == [("a", "schedule")]
    assert isinstance(house.book.problem, JobInvalid)
    problem = house.book.problem
    await house.at("21T13:00:02")
    assert house.book.problem is problem, "it is read, and complained of, once"
    assert house.book.problem.details["line"] == 2
    house.file.write_text("[jobs.a\n")
    await house.at("21T13:01")
    assert house.book.problem.code == "setting_invalid"
    with pytest.raises(Exception, match="line 1"):
        await JobBook.open(house.file, house.history)
    house.write("[jobs.z]")
    await house.at("21T13:02")

    assert house.book.problem is None
    assert [job.name for job in house.book.jobs()] == ["z"]
    house.file.unlink()
    await house.at("21T13:03")
    assert house.book.jobs() == []


async def test_a_file_that_looks_unchanged_is_read_again_when_told(house: House) -> None:
    """SIGHUP reads it, whatever its time and size say."""
    await house.open("[jobs.a]")
    about = house.file.stat()
    house.file.write_text(house.file.read_text().replace("jobs.a", "jobs.b"))
    os.utime(house.file, ns=(about.st_atime_ns, about.st_mtime_ns))
    await house.at("21T12:01")
    assert [job.name for job in house.book.jobs()] == ["a"], "positive control: nothing showed"
    house.of.read_again()
    await house.at("21T12:02")

    assert [job.name for job in house.book.jobs()] == ["b"]


async def test_the_clock_goes_by_itself(house: House, clock: HandClock) -> None:
    """With the real time: a job that is due every second is started, and one that comes into the file as well."""
    await house.open("")
    real: Callable[[], float] = time.time
    house.clock.at = real()
    house.of = JobClock(house.book, house.history, house._trigger, house.busy.__contains__, real)
    house.of.start()
    try:
        house.write('[jobs.tick]\nschedule = "every 1s"')
        await asyncio.to_thread(wait_until, lambda: len(house.started) >= 2)
    finally:
        await house.of.stop()


async def test_reading_the_same_jobs_again_is_no_news(house: House) -> None:
    """The log tells of jobs when one comes, goes or changes; not of a file without any, nor of one that was only touched."""
    with capture_logs() as logged:
        await house.open("")
        house.write("[jobs.a]")
        await house.book.look()
        house.write("[jobs.a]\n")
        await house.book.look()
    assert [entry["added"] for entry in logged if entry["event"] == "jobs read"] == [["a"]]

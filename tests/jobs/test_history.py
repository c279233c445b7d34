"""What is kept of runs that ended: once each, with totals that outlive them, also when control.db could not be written."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pondkeeper.access.store import Store
from pondkeeper.errors import ControlUnavailable
from pondkeeper.files.paths import Home
from pondkeeper.jobs import records
from pondkeeper.jobs.definition import Notify
from pondkeeper.jobs.history import History, end_of_log, record_now
from pondkeeper.jobs.records import Records
from pondkeeper.jobs.status import Phase
from tests.jobs.conftest import HandClock
from tests.jobs.ended import ended
from tests.support.keeper import program_environment


async def test_a_run_is_kept_with_everything_that_is_known_of_it(history: History, clock: HandClock) -> None:
    """Duration, rows, bytes, versions, error and the end of its log."""
    status = ended("sync", at=clock.at, took_s=3.5, rows=10, size_bytes=999, versions=[4, 5], held_s=0.2, details={"x": 1})
    await history.record(status, "one\ntwo\n")

    kept = await history.run(status.run_id)

    assert kept is not None
    assert (kept["rows"], kept["size_bytes"], kept["versions"], kept["details"]) == (10, 999, [4, 5], {"x": 1})
    assert kept["log_end"] == "one\ntwo\n"
    assert kept["finished_at"].startswith("1970-01-12T")
    assert await history.run("none") is None
    totals = history.totals["sync"]
    assert (totals.done, totals.rows, totals.running_s, totals.last_duration_s, totals.held_s) == (1, 10, 3.5, 3.5, 0.2)
    assert totals.success_at == clock.at


async def test_a_run_told_twice_is_kept_once(history: History, clock: HandClock) -> None:
    """Who follows a run after a crash cannot know whether it was recorded."""
    status = ended("sync", at=clock.at, rows=5)
    await history.record(status, "")
    await history.record(status, "other")

    assert len(await history.runs()) == 1
    assert history.totals["sync"].rows == 5


async def test_failures_are_counted_until_one_succeeds(history: History, clock: HandClock) -> None:
    """`failing_since` is the first of the series; a cancelled run is neither."""
    for number, phase in enumerate([Phase.FAILED, Phase.CANCELLED, Phase.FAILED]):
        await history.record(ended("sync", phase, at=clock.at + number), "")
    totals = history.totals["sync"]

    assert (totals.in_a_row, totals.failing_since, totals.last_outcome) == (2, clock.at, "failed")
    assert (totals.failed, totals.cancelled, totals.done) == (2, 1, 0)
    await history.record(ended("sync", at=clock.at + 9), "")
    assert (history.totals["sync"].in_a_row, history.totals["sync"].failing_since) == (0, None)


async def test_runs_are_listed_newest_first_and_page_by_page(history: History, clock: HandClock) -> None:
    """Of one job or of all; `before` goes on."""
    statuses = [ended(job, at=clock.at) for job in ("a", "b", "a", "b", "a")]
    for status in statuses:
        await history.record(status, "")
    ids = [status.run_id for status in reversed(statuses)]

    assert [run["run_id"] for run in await history.runs()] == ids
    assert [run["run_id"] for run in await history.runs(limit=2)] == ids[:2]
    assert [run["run_id"] for run in await history.runs(before=ids[1], limit=2)] == ids[2:4]
    assert [run["run_id"] for run in await history.runs("b")] == [ids[1], ids[3]]


async def test_retention_forgets_runs_and_not_totals(history: History, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is older than `keep_s` goes, of jobs that are no more as well; so do all but the last of very many."""
    await history.record(ended("old", at=clock.at, rows=1), "")
    clock.at += 90_000
    await history.record(ended("new", at=clock.at, rows=1), "")
    assert len(await history.runs()) == 2, "positive control: it is there until somebody looks"
    await history.refresh()

    assert [run["job"] for run in await history.runs()] == ["new"]
    assert history.totals["old"].rows == 1
    with Store.open(Path(history._store.path)) as store:
        for _ in range(5):
            Records(store).record(ended("many", at=clock.at), "", None, now=clock.at, keep_s=1e9, keep=3)
    assert len(await history.runs("many")) == 3


async def test_what_another_process_records_is_seen(history: History, clock: HandClock, tmp_path: Path) -> None:
    """A run of the command line alone, that ended while a keeper started."""
    await history.refresh()
    home = Home(tmp_path / "home")
    code = "import sys; from pathlib import Path; from tests.jobs.ended import ended; from pondkeeper.jobs.history import record_now;"
    code += "from pondkeeper.files.paths import Home; record_now(Home(Path(sys.argv[1])), ended('alone', rows=7), 'log', None, 1e12)"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(home.root)], check=True, env=program_environment(), timeout=60)

    assert "alone" not in history.totals
    await history.refresh()
    assert history.totals["alone"].rows == 7


async def test_a_run_that_cannot_be_recorded_now_is_recorded_later(
    history: History, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a locked control.db does not lose how a run ended, nor stop the keeper."""

    def refuse(*_: object) -> None:
        raise ControlUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(records, "_insert_run", refuse)
        assert not await history.record(ended("sync", at=clock.at), "")
        with pytest.raises(ControlUnavailable):
            await history.refresh()
    assert history.totals == {}
    await history.refresh()

    assert history.totals["sync"].done == 1


async def test_a_switch_survives(history: History, tmp_path: Path, clock: HandClock) -> None:
    """`disable` holds over restarts, until `enable` or until it is left to the file again."""
    await history.set_enabled("sync", False)
    with Store.open(tmp_path / "home" / "control.db") as store:
        assert Records(store).marks()["sync"].enabled is False
    await history.set_enabled("sync", None)

    assert history.marks["sync"].enabled is None


async def test_what_changes_a_mark_at_the_same_time_does_not_undo_the_other(history: History, clock: HandClock) -> None:
    """A person switches a job off while the clock finds its data stale and a run of it ends."""
    await asyncio.gather(
        history.set_enabled("sync", False),
        history.notify("sync", {"stale_since": clock.at}, []),
        history.change_mark("sync", handled_until=clock.at),
        history.record(ended("sync", Phase.CANCELLED, at=clock.at), ""),
    )
    mark = history.marks["sync"]

    assert (mark.enabled, mark.stale_since, mark.handled_until) == (False, clock.at, clock.at)
    history._data_version = -1
    await history.refresh()
    assert history.marks["sync"] == mark, "memory and control.db agree"


def test_a_run_without_a_keeper_leaves_its_notice_to_the_next(tmp_path: Path) -> None:
    """What nobody could be told of is in control.db."""
    home = Home(tmp_path / "home")
    record_now(home, ended("sync", Phase.FAILED), "last words", Notify("https://x.example"), 1e12)

    with Store.open(home.control_db) as store:
        (notice,) = Records(store).notices()
    assert notice.body["occasion"] == "failure"
    assert notice.body["log_end"] == "last words"


def test_the_end_of_a_log_begins_with_a_line(tmp_path: Path) -> None:
    """Half a line at its beginning is nobody's sentence; a log that is no more is an empty one."""
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %05d \xff\n" % number for number in range(5000)))
    text = end_of_log(log)

    assert text.startswith("line 0")
    assert text.endswith("line 04999 �\n")
    assert 15_000 < len(text) < 17_000
    assert end_of_log(tmp_path / "none") == ""

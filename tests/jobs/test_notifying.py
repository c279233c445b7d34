"""Webhooks: what is told of which runs, to a real receiver, signed, until it takes it, and never with the URL in a log."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from pondkeeper.files.paths import Home
from pondkeeper.jobs.definition import Job, Notify
from pondkeeper.jobs.history import History, record_now
from pondkeeper.jobs.notices import stale_notice
from pondkeeper.jobs.notifying import FIRST_WAIT_S, GIVE_UP_S, Notifier, deliver_now, signature
from pondkeeper.jobs.status import Phase
from tests.jobs.conftest import HandClock
from tests.jobs.ended import ended
from tests.support.hook import Hook
from tests.support.keeper import wait_until


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.close()


class Told:
    """A history whose jobs all tell the hook; `run` records a run and sends what it gives."""

    def __init__(self, history: History, clock: HandClock, notify: Notify) -> None:
        self.history = history
        self.clock = clock
        self.notifier = Notifier(history, clock)
        history.notify_of = lambda name: None if name == "quiet" else notify

    async def run(self, job: str, phase: Phase = Phase.DONE, log_end: str = "", **more: Any) -> int:
        self.clock.at += 60
        await self.history.record(ended(job, phase, at=self.clock.at, **more), log_end)
        return await self.notifier.deliver()


@pytest.fixture
def told(history: History, clock: HandClock, hook: Hook) -> Told:
    return Told(history, clock, Notify(hook.url, remind_s=3600.0))


async def test_failure_and_recovery_are_told_once_each(told: Told, hook: Hook) -> None:
    """Not every run of a bad night, nothing of runs that go well, nothing of cancelled ones."""
    await told.run("sync")
    await told.run("sync", Phase.CANCELLED)
    assert hook.told == []
    await told.run("sync", Phase.FAILED, "a\nlast line", rows=0)
    await told.run("sync", Phase.FAILED)
    await told.run("sync", Phase.CANCELLED)
    assert hook.told == [("failure", "sync")]
    await told.run("sync", rows=1234)
    await told.run("sync")
    assert hook.told == [("failure", "sync"), ("recovery", "sync")]
    failure, recovery = hook.bodies

    assert failure["text"].startswith("Job sync failed: It broke. (run_failed) Run 2026")
    assert failure["run"]["error"]["remedy"] == "Mend it."
    assert failure["log_end"] == "a\nlast line"
    assert "after 2 failed in a row, with 1,234 rows" in recovery["text"]
    assert recovery["failing_since"] == failure["run"]["finished_at"]


async def test_a_series_of_failures_is_told_again_every_so_often(told: Told, hook: Hook, clock: HandClock) -> None:
    """After `remind_s`, with how many there were."""
    await told.run("sync", Phase.FAILED)
    clock.at += 3600
    await told.run("sync", Phase.FAILED)

    assert hook.told == [("failure", "sync")] * 2
    assert hook.bodies[1]["text"].endswith("For the 2nd time in a row.")


async def test_who_tells_nobody_tells_nobody(told: Told, hook: Hook, history: History) -> None:
    """A job without `notify`, and occasions that were not asked for; recovery is told also when failure was not."""
    await told.run("quiet", Phase.FAILED)
    history.notify_of = lambda _: Notify(hook.url, ("recovery",))
    await told.run("sync", Phase.FAILED)
    assert hook.told == []
    await told.run("sync")

    assert hook.told == [("recovery", "sync")]


async def test_stale_data_is_told_once_and_its_end(told: Told, hook: Hook, history: History, clock: HandClock) -> None:
    """Measured from the last success; of a job that never had one, from when it became known."""
    notify = Notify(hook.url, stale_after_s=7200.0)
    job = Job("sync", "command", None, None, notify=notify)
    await history.know(["sync"])

    async def look() -> None:
        found = stale_notice(job, history.totals.get("sync"), history.marks["sync"], clock.at)
        if found is not None:
            await history.notify("sync", {"stale_since": clock.at}, found)
        await told.notifier.deliver()

    clock.at += 7199
    await look()
    assert hook.told == []
    clock.at += 2
    await look()
    await look()
    assert hook.told == [("stale", "sync")]
    assert "no success for 2 h" in hook.bodies[0]["text"]
    await told.run("sync")
    assert hook.told == [("stale", "sync"), ("recovery", "sync")]
    clock.at += 86_400
    await look()
    assert hook.told[2:] == [("stale", "sync")]
    assert "the last success was 24 h ago" in hook.bodies[2]["text"]


async def test_a_receiver_that_refuses_is_asked_again_in_order(told: Told, hook: Hook, clock: HandClock) -> None:
    """Later notices of a job wait behind the first; a redirect is no yes, and is not followed."""
    hook.statuses = [500, 302]
    assert await told.run("sync", Phase.FAILED) == 1
    assert await told.notifier.deliver() == 1
    assert len(hook.got) == 1, "not before its time"
    clock.at += FIRST_WAIT_S
    assert await told.notifier.deliver() == 1
    assert await told.run("sync") == 0

    assert hook.told == [("failure", "sync")] * 3 + [("recovery", "sync")]
    assert {headers["Pondkeeper-Delivery"] for headers, _ in hook.got[:3]} == {hook.got[0][0]["Pondkeeper-Delivery"]}


async def test_what_nobody_takes_is_given_up_and_no_log_has_the_url(told: Told, clock: HandClock, history: History) -> None:
    """After a day. Until then each attempt waits longer."""
    history.notify_of = lambda _: Notify("http://127.0.0.1:1/token-s3cret")
    with structlog.testing.capture_logs() as logs:
        assert await told.run("sync", Phase.FAILED) == 1
        clock.at += 601
        assert await told.notifier.deliver() == 1
        clock.at += GIVE_UP_S
        assert await told.notifier.deliver() == 0

    assert [entry["event"] for entry in logs][-1] == "a webhook is given up"
    assert "s3cret" not in json.dumps(logs)
    assert "127.0.0.1: ConnectError" in json.dumps(logs)


async def test_the_receiver_can_tell_who_has_sent_it(
    told: Told, hook: Hook, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL from the environment, the key from a file; the signature is of the very bytes and the moment."""
    monkeypatch.setenv("HOOK", hook.url)
    (tmp_path / "key").write_text("k3y\n")
    history.notify_of = lambda _: Notify("env:HOOK", secret=f"file:{tmp_path}/key")
    await told.run("sync", Phase.FAILED)
    headers, body = hook.got[0]
    moment = int(headers["Pondkeeper-Signature"].partition(",")[0].removeprefix("t="))

    assert headers["Pondkeeper-Signature"] == signature("k3y", body, moment)
    assert signature("k3y", body, moment) != signature("k3z", body, moment)


async def test_a_secret_that_is_missing_waits_for_it(told: Told, hook: Hook, history: History, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is set later: then it is sent."""
    history.notify_of = lambda _: Notify("env:LATER_HOOK")
    assert await told.run("sync", Phase.FAILED) == 1
    monkeypatch.setenv("LATER_HOOK", hook.url)
    clock.at += FIRST_WAIT_S

    assert await told.notifier.deliver() == 0
    assert hook.told == [("failure", "sync")]


@pytest.mark.parametrize("url", ["http://[", "ftp://x.example", "x", "http://x\x7f.example/", "http://…\udcff/", "http://x.example:99999/", "//x"])
async def test_what_is_no_address_is_no_end_of_the_keeper(
    told: Told, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Whatever stands in the variable, or where no certificates can be read: a problem of this notice, tried again."""
    monkeypatch.setenv("HOOK", url)
    history.notify_of = lambda _: Notify("env:HOOK")
    assert await told.run("sync", Phase.FAILED) == 1
    monkeypatch.setenv("HOOK", "https://127.0.0.1:1/")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert await told.run("other", Phase.FAILED) == 2


async def test_one_hook_that_hangs_does_not_hold_up_the_others(told: Told, hook: Hook, history: History, clock: HandClock) -> None:
    """Jobs are told beside each other; and it goes by itself as soon as something is recorded."""
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    history.notify_of = lambda name: Notify(url if name == "a-hangs" else hook.url)
    told.notifier.start()
    try:
        for job in ("a-hangs", "b-answers"):
            await history.record(ended(job, Phase.FAILED, at=clock.at), "")
        await asyncio.to_thread(wait_until, lambda: hook.told == [("failure", "b-answers")])
    finally:
        await told.notifier.stop()
        silent.close()


def test_without_a_keeper_it_is_told_at_once(tmp_path: Path, hook: Hook) -> None:
    """A run of the command line alone tries once; what is not taken waits."""
    home = Home(tmp_path / "home")
    job = Job("sync", "command", None, None, notify=Notify(hook.url))
    hook.statuses = [503]
    record_now(home, ended("sync", Phase.FAILED), "", job.notify, 1e12)
    deliver_now(home, job)
    assert len(hook.got) == 1
    deliver_now(home, job)
    assert len(hook.got) == 1, "not before its time"
    record_now(home, ended("other", Phase.FAILED), "", job.notify, 1e12)
    deliver_now(home, Job("other", "command", None, None, notify=job.notify))

    assert hook.told == [("failure", "sync"), ("failure", "other")]

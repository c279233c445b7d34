"""Webhooks: what `notices` has decided to tell, sent until somebody has taken it. At least once, in the order of each job."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog

from pondkeeper import __version__
from pondkeeper.access.store import Store
from pondkeeper.errors import PondkeeperError
from pondkeeper.jobs.records import Records, Waiting
from pondkeeper.jobs.secrets import is_reference, reveal
from pondkeeper.workers.side_tasks import SideTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pondkeeper.files.paths import Home
    from pondkeeper.jobs.definition import Job, Notify
    from pondkeeper.jobs.history import History

TIMEOUT_S: Final = 10.0
FIRST_WAIT_S: Final = 5.0
MOST_WAIT_S: Final = 600.0
GIVE_UP_S: Final = 86_400.0
AT_ONCE: Final = 8
LOOK_S: Final = 5.0
_log = structlog.get_logger(__name__)


class Notifier:
    """Sends what is to be sent, beside everything else. A hook that does not answer holds up its own job's notices only."""

    def __init__(self, history: History, now: Callable[[], float] = time.time) -> None:
        self._history = history
        self._now = now
        self._tasks = SideTasks()
        self._wake = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._sending: dict[str, asyncio.Task[None]] = {}
        history.on_notices = self._wake.set

    def start(self) -> None:
        """Send from now on, and what an earlier keeper could not."""
        self._tasks.start(self._run())

    async def stop(self) -> None:
        """Send nothing any more; what is left is sent by the next keeper."""
        await self._tasks.end()

    async def deliver(self) -> int:
        """Send what is due, to its end; how many wait after that."""
        await self._begin()
        await asyncio.gather(*self._sending.values())
        return len(await self._history.notices())

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                waiting = await self._begin()
            except PondkeeperError as error:
                _log.error("webhooks could not be looked up; it is tried again", error=str(error))
                waiting = 1
            try:
                async with asyncio.timeout(LOOK_S if waiting else None):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _begin(self) -> int:
        """Begin to send what is due and not being sent; how many wait to be taken."""
        waiting = await self._history.notices()
        for job, of_job in groupby(sorted(waiting, key=_job_and_id), key=lambda notice: notice.job):
            notices = list(of_job)
            if job not in self._sending and notices[0].due_at <= self._now():
                self._sending[job] = self._tasks.start(self._send_of_job(job, notices))
        return len(waiting)

    async def _send_of_job(self, job: str, notices: list[Waiting]) -> None:
        try:
            for notice in notices:
                async with self._at_once:
                    problem = await send(notice, self._history.notify_of(job))
                due_at = due_again(notice, problem, self._now())
                await self._history.settle_notice(notice.id, due_at)
                if due_at is not None:
                    break
        except PondkeeperError as error:
            _log.error("it could not be noted that a webhook was sent; it is sent again", job=job, error=str(error))
            await asyncio.sleep(LOOK_S)
        finally:
            del self._sending[job]
            self._wake.set()


def deliver_now(home: Home, job: Job) -> None:
    """Try once to send what waits of a job, where no keeper runs; what cannot be sent waits for the next one."""
    with Store.open(home.control_db) as store:
        records = Records(store)
        waiting = [notice for notice in records.notices() if notice.job == job.name and notice.due_at <= time.time()]
        for notice in waiting:
            due_at = due_again(notice, asyncio.run(send(notice, job.notify)), time.time())
            records.settle_notice(notice.id, due_at)
            if due_at is not None:
                return


def due_again(notice: Waiting, problem: str | None, now: float) -> float | None:
    """When to try again; None when it was taken, or has been tried for long enough."""
    if problem is None:
        return None
    if now - notice.created_at > GIVE_UP_S:
        _log.error("a webhook is given up", job=notice.job, occasion=notice.body["occasion"], attempts=notice.attempts + 1, problem=problem)
        return None
    wait_s = min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(notice.attempts, 20))
    _log.warning("a webhook could not be sent; it is tried again", job=notice.job, problem=problem, wait_s=wait_s)
    return now + wait_s


async def send(notice: Waiting, notify: Notify | None) -> str | None:
    """Send it once; what went wrong, None when it was taken. The URL is never said: it may be a secret."""
    import httpx  # Why here: a keeper whose jobs tell nobody anything needs no HTTP client.

    if notify is None:
        return None  # Why: the job is gone, or tells nobody any more, so there is nobody to tell.
    try:
        url, secret = await asyncio.to_thread(_secrets_of, notify)
        async with asyncio.timeout(TIMEOUT_S):
            status = await _post(url, *_message(notice, secret))
    except PondkeeperError as error:
        return error.message
    except TimeoutError:
        return f"{_host(notify)} did not answer within {TIMEOUT_S:g} s"
    except (httpx.InvalidURL, ValueError):
        return "the URL of the webhook is none"
    except (httpx.HTTPError, OSError) as error:  # Why OSError: certificates that cannot be read; it must not end the keeper.
        return f"{_host(notify)}: {type(error).__name__}"
    return None if 200 <= status < 300 else f"{_host(notify)} answered {status}"


async def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer; what it says is not read."""
    import httpx

    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)  # Trap: below that they log the URL, which may be a secret.
    # Why in a thread: reading all certificates takes 15 ms, in which the event loop would answer nobody.
    context = await asyncio.to_thread(httpx.create_ssl_context)
    async with (
        httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, verify=context) as client,
        client.stream("POST", url, content=body, headers=headers) as answer,
    ):
        return answer.status_code


def _secrets_of(notify: Notify) -> tuple[str, str]:
    """The URL and the key to sign with."""
    return reveal(notify.url) if is_reference(notify.url) else notify.url, reveal(notify.secret) if notify.secret else ""


def _message(notice: Waiting, secret: str) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(notice.body, default=str).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"pondkeeper/{__version__}",
        "Pondkeeper-Delivery": str(notice.id),
    }
    if secret:
        headers["Pondkeeper-Signature"] = signature(secret, body, int(time.time()))
    return body, headers


def signature(secret: str, body: bytes, moment: int) -> str:
    """What proves to the receiver who has sent the body, and when: `t=…,v1=…`."""
    digest = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def _host(notify: Notify) -> str:
    return "the webhook" if is_reference(notify.url) else str(urlsplit(notify.url).hostname)


def _job_and_id(notice: Waiting) -> tuple[str, Any]:
    return notice.job, notice.id

"""What a client does with jobs and their runs: `client.jobs`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import msgspec

from pondkeeper.client.transport import Transport, lost
from pondkeeper.errors import AnswerIncomplete, KeeperNotAnswering, KeeperNotRunning, KeeperStopping, RunFailed
from pondkeeper.jobs.outcomes import failure_of
from pondkeeper.jobs.status import FINAL

Status = dict[str, Any]
Statuses = list[Status]
OFFSET_HEADER: Final = "Pondkeeper-Log-Offset"
AWAY: Final = (AnswerIncomplete, KeeperNotRunning, KeeperStopping, KeeperNotAnswering)


class Jobs:
    """The jobs of a keeper. A run is a dict of its state: `run_id`, `job`, `phase`, `done`, `total`, `rows`, `error` and more."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> dict[str, Any]:
        """The `jobs` that this key may see; and, for administrators, the `problem` of the settings file if it has one."""
        return dict(self._transport.call("GET", "/v1/jobs"))

    def get(self, job: str) -> dict[str, Any]:
        """One job, for administrators with its settings."""
        return dict(self._transport.call("GET", _job(job)))

    def run(self, job: str) -> Status:
        """Have a job run now; answers at once. While one of its runs waits for its turn, that is the answer."""
        return dict(self._transport.call("POST", f"{_job(job)}/runs"))

    def enable(self, job: str) -> dict[str, Any]:
        """Switch a job on: it is due at its times and run after others."""
        return dict(self._transport.call("PATCH", _job(job), body={"enabled": True}))

    def disable(self, job: str) -> dict[str, Any]:
        """Switch a job off, also for after a restart; `run` still runs it."""
        return dict(self._transport.call("PATCH", _job(job), body={"enabled": False}))

    def accept_drift(self, job: str) -> Statuses:
        """Let the changes of the source through that a job with `drift = "ask"` was refused for: of which `table`, which `changes`."""
        return list(self._transport.call("POST", f"{_job(job)}/accept-drift")["accepted"])

    def runs(self, job: str | None = None, *, limit: int = 100, before: str | None = None) -> Statuses:
        """Runs, the youngest first: those that wait, go on, and have ended."""
        asked = {"job": job, "limit": limit, "before": before}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return list(self._transport.call("GET", f"/v1/runs?{query}")["runs"])

    def status(self, run_id: str) -> Status:
        """A run as it stands."""
        return dict(self._transport.call("GET", _run(run_id)))

    def cancel(self, run_id: str) -> Status:
        """Tell a run to end."""
        return dict(self._transport.call("DELETE", _run(run_id)))

    def wait(self, run_id: str, *, timeout_s: float | None = None) -> Status:
        """Wait for the end of a run, and answer with it. Raises what it failed by, and RunFailed when `timeout_s` went by before."""
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        status: Status = {}
        for found in self._followed(run_id, log=False):
            status = found.get("run", status)
            if give_up_at is not None and time.monotonic() > give_up_at and status.get("phase") not in FINAL:
                raise RunFailed(f"The run did not end within {timeout_s:g} s; it goes on.", remedy="Look again later.")
        if (error := failure_of(status)) is not None:
            raise error
        return status

    def follow(self, run_id: str, *, log: bool = False) -> Iterator[dict[str, Any]]:
        """`{"run": status}` at first and at each change, until it has ended; with `log` also `{"log": text, "offset": …}`.

        A connection that is lost, and a keeper that starts anew, are waited for as long as a request is repeated.
        """
        return (found for found in self._followed(run_id, log=log) if found)

    def log(self, run_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """The log of a run in pieces; with `tail` only the last so many lines, with `follow` until the run has ended."""
        offset: int | None = None
        patience = self._transport.patience()
        while True:
            asked = {"follow": "true" if follow else None, "offset": offset, "tail": tail if offset is None else None}
            query = urlencode({name: value for name, value in asked.items() if value is not None})
            try:
                response = self._transport.open("GET", f"{_run(run_id)}/log?{query}", accept="text/plain")
                offset = int(response.headers.get(OFFSET_HEADER, 0)) if offset is None else offset
                for piece in _pieces(response):
                    offset += len(piece)
                    patience = self._transport.patience()
                    yield piece
                return
            except AWAY:
                if not follow or not patience.wait():
                    raise

    def _followed(self, run_id: str, *, log: bool) -> Iterator[dict[str, Any]]:
        """As `follow`; an empty dict about every second when nothing happens."""
        offset = 0
        patience = self._transport.patience()
        while True:
            query = "follow=true" + (f"&log_offset={offset}" if log else "")
            try:
                response = self._transport.open("GET", f"{_run(run_id)}?{query}", accept="application/x-ndjson")
                for line in _lines(response):
                    found = dict(msgspec.json.decode(line)) if line else {}
                    offset = found.get("offset", offset)
                    patience = self._transport.patience()
                    yield found
                    if found.get("run", {}).get("phase") in FINAL:
                        return
            except AWAY:
                if not patience.wait():
                    raise


def _job(name: str) -> str:
    return f"/v1/jobs/{quote(name, safe='')}"


def _run(run_id: str) -> str:
    return f"/v1/runs/{quote(run_id, safe='')}"


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """The lines as they come; raises AnswerIncomplete when the connection is lost."""
    rest = b""
    for piece in _pieces(response):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes()
    except httpx.HTTPError as error:
        raise lost(error) from error
    finally:
        response.close()

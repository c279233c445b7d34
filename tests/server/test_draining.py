"""A keeper that stops lets requests finish within its grace, and ends the others in words."""

from __future__ import annotations

import threading
import time

import httpx

from tests.server.conftest import MakeServed, Served, read_all
from tests.support.keeper import wait_until


def in_background(served: Served, path: str, sql: str) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []

    def ask() -> None:
        with served.client() as client:
            answers.append(client.post(path, json={"sql": sql}))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def test_running_request_finishes_within_the_grace(make_served: MakeServed) -> None:
    """What runs is answered, idle connections end at once, and nobody new gets in."""
    served = make_served()
    thread, answers = in_background(served, "/v1/query", "wait 0.5")
    wait_until(lambda: served.database.waiting, what="the query")
    with served.connect() as idle:
        wait_until(lambda: len(served.server._state.connections) == 2, what="the connection")
        served.call(served.server.stop(5.0))
        assert read_all(idle) == b""
    thread.join(30)
    assert answers[0].status_code == 200
    assert answers[0].headers["connection"] == "close"
    assert served.app.context.is_stopping


def test_request_beyond_the_grace_is_cancelled_in_words(make_served: MakeServed) -> None:
    """What does not finish is told that the keeper stops, within the grace and little more."""
    served = make_served()
    thread, answers = in_background(served, "/v1/query", "wait 60")
    wait_until(lambda: served.database.waiting, what="the query")
    began = time.monotonic()
    served.call(served.server.stop(0.3))
    thread.join(30)
    assert 0.25 < time.monotonic() - began < 30
    assert answers[0].status_code == 503
    assert answers[0].json()["error"]["code"] == "keeper_stopping"
    assert served.database.cancelled == 1


def test_write_beyond_the_grace_is_unknown_and_not_to_be_tried_again(make_served: MakeServed) -> None:
    """A write that the drain overtakes may yet be committed: it is never answered with a 503."""
    served = make_served()
    thread, answers = in_background(served, "/v1/execute", "wait 2")
    wait_until(lambda: served.database.writes, what="the write")
    served.call(served.server.stop(0.2))
    thread.join(30)
    assert answers[0].status_code == 502
    assert answers[0].json()["error"]["code"] == "outcome_unknown"
    assert "retry-after" not in answers[0].headers
    wait_until(lambda: served.database.written, what="the end of the write")


def test_hurry_cuts_the_grace_short(make_served: MakeServed) -> None:
    """A second signal ends the wait."""
    served = make_served()
    thread, answers = in_background(served, "/v1/query", "wait 60")
    wait_until(lambda: served.database.waiting, what="the query")
    threading.Timer(0.2, served.server.hurry).start()
    began = time.monotonic()
    served.call(served.server.stop(30.0))
    thread.join(30)
    assert time.monotonic() - began < 25
    assert answers[0].status_code == 503

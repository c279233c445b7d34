"""Streams are whole or visibly not, flow at the client's pace, and do not fill the memory."""

from __future__ import annotations

import resource
import time
from typing import Any

import httpx
import pytest

from tests.server.conftest import Served
from tests.support.keeper import wait_until


def test_stream_arrives_whole(served: Served) -> None:
    """A large answer comes in chunks, every byte of it, with its version in the head."""
    with served.client() as client, client.stream("POST", "/v1/query", json={"sql": "stream 50 1000003"}) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["pondkeeper-version"] == "7"
        assert "pondkeeper-row-count" not in response.headers
        assert sum(len(part) for part in response.iter_raw()) == 50 * 1000003


def test_connection_is_used_again_after_a_stream(served: Served) -> None:
    """A stream that ended well leaves its connection in step."""
    with served.client() as client:
        for size in (1, 70_000, 3_000_000):
            assert len(client.post("/v1/query", json={"sql": f"stream 3 {size}"}).content) == 3 * size
        assert len(served.server._state.connections) == 1


@pytest.mark.parametrize("what", ["break", "cut"])
@pytest.mark.parametrize("format_", ["csv", "ndjson"])
def test_answer_that_is_not_whole_is_not_taken_for_whole(served: Served, what: str, format_: str) -> None:
    """An answer that breaks off, or that a limit cuts after its head, ends without its last chunk."""
    with served.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(f"/v1/query?format={format_}", json={"sql": what})
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200
        text = client.get("/metrics").text
    assert 'pondkeeper_queries_total{outcome="cut"} 1.0' in text
    assert served.database.streams[0].is_cancelled


def test_answer_that_ends_where_the_caller_asked_is_whole(served: Served) -> None:
    """A limit that the caller set is no surprise: CSV ends there in order. The server's own limit breaks it off."""
    with served.client() as client:
        asked = client.post("/v1/query?format=csv", json={"sql": "cut", "limits": {"max_rows": 5}})
        assert asked.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/v1/query?format=csv", json={"sql": "cut", "limits": {"max_bytes": 5}})


def test_query_that_fails_before_its_first_byte_says_so(served: Served) -> None:
    """As long as nothing was sent, a failure is an error in the envelope and not a broken answer."""
    with served.client() as client:
        response = client.post("/v1/query", json={"sql": "breakfirst"})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "statement_failed"


@pytest.mark.parametrize("format_", ["json", "arrow", "parquet"])
def test_answer_that_says_itself_that_it_is_cut_ends_well(served: Served, format_: str) -> None:
    """Formats with a place for `truncated` are not aborted for it."""
    with served.client() as client:
        assert client.post(f"/v1/query?format={format_}", json={"sql": "cut"}).status_code == 200


def test_slow_reader_slows_the_stream(served: Served) -> None:
    """A client that pauses stops the stream; the keeper's memory does not grow with the answer."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with served.client() as client, client.stream("POST", "/v1/query", json={"sql": "stream 400 1000000"}) as response:
        parts = response.iter_raw()
        next(parts)
        stream = served.database.streams[-1]
        at_pause = wait_until(lambda: rests_at(stream), what="a stream that stops")
        assert at_pause < 30
        assert sum(len(part) for part in parts) > 380_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def rests_at(stream: Any) -> int | None:
    """How many parts were sent, if there are none more a moment later."""
    before: int = stream.sent
    time.sleep(0.3)
    return before if stream.sent == before else None

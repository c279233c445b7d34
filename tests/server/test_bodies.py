"""Bad bodies: each a clear error that names what is wrong, and the server goes on."""

from __future__ import annotations

import httpx
import pytest

from pondkeeper.access.authorize import LOCAL_KEY
from pondkeeper.access.limits import Limits
from pondkeeper.errors import InvalidRequest
from pondkeeper.server.bodies import Decoder, ExecuteBody, QueryBody
from pondkeeper.server.routes.queries import read_request
from tests.server.conftest import Served

MALFORMED = [
    (b"", "no body"),
    (b"{", "ends too early"),
    (b'{"sql": "one"', "ends too early"),
    (b'{"sql": "one"} x', "not JSON"),
    (b"sql=one", "not JSON"),
    (b"\xff\xfe{", "not JSON"),
    (b'{"sql": "\xff"}', "UTF-8"),
    (b'{"sql": NaN}', "not JSON"),
    (b"[]", "Expected `object`"),
    (b"null", "Expected `object`"),
    (b"{}", "required field `sql`"),
    (b'{"sql": ""}', "$.sql"),
    (b'{"sql": 1}', "Expected `str`, got `int`"),
    (b'{"sql": "one", "parameters": "x"}', "$.parameters"),
    (b'{"sql": "one", "parameters": [1e999]}', "out of range"),
    (b'{"sql": "one", "paramters": []}', "Was `parameters` meant?"),
    (b'{"sql": "one", "limits": {"timeout": 1}}', "Was `timeout_s` meant?"),
    (b'{"sql": "one", "limits": {"timeout_s": 0}}', "$.limits.timeout_s"),
    (b'{"sql": "one", "limits": {"timeout_s": -1}}', "$.limits.timeout_s"),
    (b'{"sql": "one", "limits": {"max_rows": 0}}', "$.limits.max_rows"),
    (b'{"sql": "one", "limits": {"max_rows": 1.5}}', "$.limits.max_rows"),
    (b'{"sql": "one", "limits": {"memory": "much"}}', "limits.memory"),
    (b'{"sql": "one", "limits": {"max_bytes": -5}}', "limits.max_bytes"),
    (b'{"sql": "one", "limits": {"threads": 0}}', "$.limits.threads"),
    (b'{"sql": "one", "at_least": "new"}', "$.at_least"),
    (b'{"sql": "one", "parameters": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
]


@pytest.mark.parametrize(("body", "expected"), MALFORMED)
def test_malformed_query_says_what_is_wrong(body: bytes, expected: str) -> None:
    """A body that is no query is refused in words that name the place."""
    with pytest.raises(InvalidRequest) as refused:
        read_request(Decoder(QueryBody).decode(body), "json", Limits(30.0, 1000, 1000), LOCAL_KEY, "test")
    assert expected in refused.value.message


def test_malformed_bodies_over_the_wire_leave_the_server_up(served: Served) -> None:
    """Each of them is a 400 in the envelope, on a connection that stays in step."""
    with served.client() as client:
        for body, _ in MALFORMED:
            response = client.post("/v1/query", content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 400, body
            assert response.json()["error"]["code"] == "invalid_request"
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200
    assert len(served.database.requests) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", "either `sql` or `statements`"),
        (b'{"sql": "a", "statements": [{"sql": "b"}]}', "either `sql` or `statements`"),
        (b'{"statements": []}', "$.statements"),
        (b'{"statements": ["a"]}', "$.statements[0]"),
        (b'{"statements": [{"sql": "a"}], "parameters": [1]}', "belong to each"),
        (b'{"sql": "a", "limits": {"max_rows": 1}}', "max_rows"),
    ],
)
def test_malformed_write_says_what_is_wrong(body: bytes, expected: str) -> None:
    """A write is one statement or one list, never both or neither."""
    with pytest.raises(InvalidRequest) as refused:
        Decoder(ExecuteBody).decode(body).in_order()
    assert expected in refused.value.message


def test_numbers_arrive_exactly() -> None:
    """Whole numbers of any size stay whole numbers."""
    body = Decoder(QueryBody).decode(
        b'{"sql": "x", "parameters": [170141183460469231731687303715884105727, 0.1, -0.0]}'
    )
    assert body.parameters == [2**127 - 1, 0.1, -0.0]


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "application/vnd.mine+json", "application/x-www-form-urlencoded", "text/plain", "x"],
)
def test_a_body_is_json_whatever_it_calls_itself(served: Served, content_type: str | None) -> None:
    """`curl -d` calls its body a form; it is read as the JSON that it is."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    with served.client() as client:
        assert client.post("/v1/query", content=b'{"sql": "one"}', headers=headers).status_code == 200


def test_what_a_web_page_can_send_unasked_is_refused(served: Served) -> None:
    """A form without an Authorization header, which is all that another site's page can make a browser send."""
    with served.client() as client:
        del client.headers["Authorization"]
        headers = {"Content-Type": "text/plain", "Origin": "http://evil.example", "Cookie": f"key={served.token}"}
        assert client.post("/v1/query", content=b'{"sql": "one"}', headers=headers).status_code == 401
        preflight = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "authorization"}
        answer = client.options("/v1/query", headers=preflight)
    assert "access-control-allow-origin" not in answer.headers


def test_compressed_body_is_refused(served: Served) -> None:
    """A body that would have to be unpacked first is not understood, whatever it unpacks to."""
    with served.client() as client:
        response = client.post("/v1/query", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


def test_body_beyond_the_limit_is_refused(hasty: Served) -> None:
    """One byte below the limit is read, one above is not."""

    def post(size: int) -> httpx.Response:
        with hasty.client() as client:
            return client.post("/v1/query", content=b'{"sql": "one"}'.ljust(size))

    assert post(10_000).status_code == 200
    too_large = post(10_001)
    assert too_large.status_code == 413
    assert too_large.json()["error"]["max_bytes"] == 10_000

"""429 and Retry-After: who asks too often waits, everybody else does not."""

from __future__ import annotations

import threading

from pondkeeper.access.audit_reading import Filter, newest, verify
from pondkeeper.settings import LimitSettings, ReaderSettings
from tests.server.conftest import MakeServed, Served
from tests.support.keeper import wait_until

WRONG = "pk_abcdefghijkl_" + "x" * 43


def limited(served: Served, **limits: float) -> str:
    name = f"limited {len(served.call(served.keys.all()))}"
    return str(served.call(served.keys.create(name, "reader", ("*",), None, None, limits)).token)


def test_a_key_over_its_rate_waits_and_others_do_not(served: Served) -> None:
    fast, slow = served.key("reader"), limited(served, requests_per_s=0.5)
    with served.client(slow) as client, served.client(fast) as other:
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200
        refused = client.get("/v1/databases")
        assert refused.status_code == 429
        assert refused.json()["error"]["level"] == "key"
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert all(other.post("/v1/query", json={"sql": "one"}).status_code == 200 for _ in range(20))


def test_a_key_has_so_many_queries_at_a_time(served: Served) -> None:
    token = limited(served, concurrent=1)

    def wait() -> None:
        with served.client(token) as client:
            client.post("/v1/query", json={"sql": "wait 20"})

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        wait_until(lambda: served.database.waiting)
        with served.client(token) as client, served.client() as admin:
            refused = client.post("/v1/query", json={"sql": "one"})
            assert (refused.status_code, refused.json()["error"]["limit"]) == (429, "concurrent")
            assert client.get("/v1/databases").status_code == 200
            with served.connect() as connection:  # a large body is refused without being waited for
                asked = served.request(b"", "/v1/query", "Content-Length: 5000000")
                connection.sendall(asked.replace(served.token.encode(), token.encode()))
                assert b" 429 " in connection.recv(65536)
            assert admin.post("/v1/query", json={"sql": "one"}).status_code == 200
            admin.delete("/v1/queries/q_wait")
    finally:
        thread.join(30)
    with served.client(token) as client:
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200


def test_a_key_that_is_given_up_has_its_place_again(served: Served) -> None:
    token = limited(served, concurrent=1)
    with served.connect() as connection:
        body = b'{"sql": "wait 20"}'
        head = f"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: served.database.waiting)
    with served.client(token) as client:
        wait_until(lambda: client.post("/v1/query", json={"sql": "one"}).status_code == 200)


def test_wrong_keys_are_counted_and_right_ones_get_in(make_served: MakeServed) -> None:
    served = make_served(limits=LimitSettings(failed_logins_per_min=5))
    with served.client(WRONG) as client:
        statuses = [client.get("/v1/databases").status_code for _ in range(300)]
        last = client.get("/v1/databases")
    assert statuses[:5] == [401] * 5
    assert statuses.count(429) >= 290
    assert int(last.headers["retry-after"]) >= 1
    with served.client(None) as client:
        assert client.get("/v1/databases").status_code == 429
    with served.client() as client:
        assert client.get("/v1/databases").status_code == 200


def test_a_flood_of_wrong_keys_does_not_fill_the_audit(make_served: MakeServed) -> None:
    served = make_served(limits=LimitSettings(failed_logins_per_min=5))
    with served.client(WRONG) as client:
        for _ in range(200):
            client.get("/v1/databases")
    wait_until(lambda: not served.audit._refused_logins and not served.audit._waiting)
    folder = served.folder / "audit"
    assert len(newest(folder, Filter(outcome="unauthenticated"), 1000)) < 20
    assert not newest(folder, Filter(outcome="too_many_failed_logins"), 1000)
    assert verify(folder).last_number < 150


def test_limits_cut_what_a_caller_asks_for(make_served: MakeServed) -> None:
    """A caller may ask for less than his key, his role, his database and the server allow, never for more."""
    served = make_served(
        readers=ReaderSettings(max_rows=1000, timeout_s=20.0),
        limits=LimitSettings(roles=("reader max_rows=500",), databases=("pond timeout_s=4s",)),
    )
    token = limited(served, max_bytes=5000, memory=10_000_000, threads=2)
    with served.client(token) as client:
        most = {"timeout_s": 99, "max_rows": 10**9, "max_bytes": 10**9, "memory": "10GB", "threads": 64}
        client.post("/v1/query", json={"sql": "one", "limits": most})
        client.post("/v1/query", json={"sql": "one", "limits": {"timeout_s": 1, "max_rows": 7, "threads": 1}})
        client.post("/v1/query", json={"sql": "one"})
    more, less, none = served.database.requests
    assert (more.timeout_s, more.max_rows, more.max_bytes, more.memory_limit_bytes, more.threads) == (4, 500, 5000, 10_000_000, 2)
    assert (less.timeout_s, less.max_rows, less.max_bytes, less.threads) == (1, 7, 5000, 1)
    assert (none.timeout_s, none.max_rows, none.memory_limit_bytes) == (4, 500, 10_000_000)


def test_long_statements_and_many_parameters_are_refused_by_name(make_served: MakeServed) -> None:
    served = make_served(limits=LimitSettings(max_statement_bytes=1024, max_parameters=3))
    with served.client() as client:
        for path in ("/v1/query", "/v1/execute"):
            long = client.post(path, json={"sql": "one " + "é" * 600})
            many = client.post(path, json={"sql": "one", "parameters": [1, 2, 3, 4]})
            assert (long.status_code, long.json()["error"]["limit"]) == (413, "max_statement_bytes")
            assert (many.status_code, many.json()["error"]["limit"]) == (400, "max_parameters")
            assert client.post(path, json={"sql": "one " + "x" * 1000, "parameters": [1, 2, 3]}).status_code == 200


def test_the_tables_of_a_key_go_with_its_query(served: Served) -> None:
    new = served.call(served.keys.create("some", "reader", ("*",), None, ["t", "sales.*"], None))
    with served.client(new.token) as client:
        client.post("/v1/query", json={"sql": "one"})
        for method, path in (("GET", "/v1/snapshots"), ("POST", "/v1/snapshots"), ("GET", "/metrics"), ("GET", "/v1/keys")):
            assert client.request(method, path).status_code == 403
        assert client.get("/v1/databases/pond").status_code == 200
    [request] = served.database.requests
    assert request.grants == (("main", "t"), ("sales", None))

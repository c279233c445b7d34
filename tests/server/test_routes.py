"""Every route answers in its shape, to whom it should, and errors have one envelope."""

from __future__ import annotations

import os
import stat
from typing import Any

import httpx
import pytest

from tests.server.conftest import MakeServed, Served


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert {"code", "message", "remedy"} <= set(body["error"])
    assert response.headers["content-type"] == "application/json"
    return dict(body["error"])


def test_query_answers_with_its_headers(served: Served) -> None:
    """A small answer has its length, its id, its version and its row count in the head."""
    with served.client() as client:
        response = client.post("/v1/query", json={"sql": "one"})
    assert response.status_code == 200
    assert response.json()["rows"] == [[1]]
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["pondkeeper-query-id"] == "q_1"
    assert response.headers["pondkeeper-version"] == "7"
    assert response.headers["pondkeeper-row-count"] == "1"
    assert response.headers["pondkeeper-truncated"] == "false"
    assert "pondkeeper-limit" not in response.headers
    assert response.headers["cache-control"] == "no-store"
    assert "date" in response.headers


def test_small_answer_that_was_cut_says_so_in_its_head(served: Served) -> None:
    """A CSV answer that a limit cut, and that was whole in memory, carries the limit in its head."""
    with served.client() as client:
        response = client.post("/v1/query?format=csv", json={"sql": "smallcut"})
    assert response.headers["pondkeeper-truncated"] == "true"
    assert response.headers["pondkeeper-limit"] == "max_rows"


@pytest.mark.parametrize("path", ["/v1/query", "/v1/databases/pond/query"])
def test_query_passes_everything_on(served: Served, path: str) -> None:
    """Parameters, version and limits reach the database; a limit above the server's is the server's."""
    limits = {"timeout_s": 3, "max_rows": 5000, "max_bytes": "1MB", "memory": "64MiB", "threads": 2}
    body = {"sql": "one", "parameters": {"x": [1, None]}, "at_least": 4, "limits": limits}
    with served.client() as client:
        assert client.post(path, json=body, headers={"Accept": "text/csv"}).status_code == 200
    request = served.database.requests[-1]
    assert (request.sql, request.parameters, request.at_least) == ("one", {"x": [1, None]}, 4)
    assert (request.timeout_s, request.max_rows, request.max_bytes) == (3.0, 1000, 1_000_000)
    assert (request.memory_limit_bytes, request.threads, request.format) == (64 * 1024 * 1024, 2, "csv")
    assert request.client is not None
    assert request.client.startswith("127.0.0.1:")


def test_forwarded_headers_are_not_believed(served: Served) -> None:
    """Who asks is who is connected, whatever the request says of itself."""
    with served.client() as client:
        client.post(
            "/v1/query", json={"sql": "one"}, headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
        )
    assert str(served.database.requests[-1].client).startswith("127.0.0.1:")


def test_execute_answers_for_one_and_for_a_list(served: Served) -> None:
    """One statement answers with a number of rows, a list with a list, and both with the version."""
    with served.client() as client:
        one = client.post("/v1/execute", json={"sql": "insert", "parameters": [1]}).json()
        several = client.post("/v1/databases/pond/execute", json={"statements": [{"sql": "a"}, {"sql": "b"}]}).json()
    assert one == {"outcome": "committed", "version": 8, "rows_changed": 1}
    assert several == {"outcome": "committed", "version": 8, "rows_changed": [1, 1]}
    assert served.database.writes[0].statements == [("insert", [1])]


def test_lists_are_of_what_the_key_may_see(make_served: MakeServed) -> None:
    """A key for one database sees that one, and cannot tell another from one that does not exist."""
    served = make_served("a", "b")
    with served.client() as admin, served.client(served.key("reader", "a")) as reader:
        assert [each["name"] for each in admin.get("/v1/databases").json()["databases"]] == ["a", "b"]
        assert [each["name"] for each in reader.get("/v1/databases").json()["databases"]] == ["a"]
        assert reader.get("/v1/databases/a").json()["version"] == 7
        other, none = reader.get("/v1/databases/b"), reader.get("/v1/databases/c")
        assert other.status_code == none.status_code == 403
        assert reader.post("/v1/databases/a/query", json={"sql": "one"}).status_code == 200
        assert reader.post("/v1/databases/b/query", json={"sql": "one"}).status_code == 403
        assert error_of(reader.post("/v1/databases/a/execute", json={"sql": "x"}))["code"] == "forbidden"
        assert error_of(admin.get("/v1/databases/c"))["code"] == "database_not_found"
        assert error_of(admin.post("/v1/query", json={"sql": "one"}))["code"] == "database_not_found"


def test_keys_are_made_listed_and_revoked(served: Served) -> None:
    """An administrator makes a key that works at once and, revoked, at once no more; others may not."""
    with served.client() as admin:
        made = admin.post("/v1/keys", json={"name": "dashboard", "databases": ["pond"]})
        assert made.status_code == 201
        with served.client(made.json()["token"]) as dashboard:
            assert dashboard.get("/v1/databases/pond").status_code == 200
            assert error_of(dashboard.get("/v1/keys"))["code"] == "forbidden"
            listed = admin.get("/v1/keys")
            assert {key["name"] for key in listed.json()["keys"]} == {"admin", "dashboard"}
            assert made.json()["token"] not in listed.text
            assert admin.delete(f"/v1/keys/{made.json()['key']['id']}").json()["key"]["state"] == "revoked"
            assert dashboard.get("/v1/databases/pond").status_code == 401
        assert error_of(admin.delete("/v1/keys/nobody"))["code"] == "key_not_found"


def test_snapshots_are_taken_and_their_path_is_for_administrators(served: Served) -> None:
    """Where a snapshot lies on the server's disk is nothing that a writer's key gets to see."""
    with served.client() as admin, served.client(served.key("writer")) as writer:
        assert admin.post("/v1/databases/pond/snapshots").json()["path"] == "/secret/place"
        taken = writer.post("/v1/snapshots").json()
    assert taken["version"] == 9
    assert "path" not in taken


@pytest.mark.parametrize("path", ["/v1/databases", "/metrics", "/openapi.json", "/nowhere", "/v1/query"])
@pytest.mark.parametrize("header", [None, "Bearer pk_000000000000_" + "x" * 43, "Basic YTpi", "Bearer", "Bearer \xff"])
def test_nobody_gets_in_without_a_key(served: Served, path: str, header: str | None) -> None:
    """Everything but the health checks wants a valid key, from localhost too, and says how to send one."""
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    response = httpx.get(served.url + path, headers=headers, trust_env=False, verify=False)
    assert response.status_code == 401
    assert error_of(response)["code"] == "unauthenticated"
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_health_takes_no_key(served: Served) -> None:
    """Health checks need no key; a keeper is ready when something can be queried and nothing is opening."""
    with served.client(None) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        assert client.head("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 200
        served.database.state = "starting"
        response = client.get("/health/ready")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/databases/pond/", 404, "not_found"),
        ("POST", "/v1/databases/pond/x/query", 404, "not_found"),
        ("POST", "/v2/query", 404, "not_found"),
        ("GET", "/v1/query", 405, "method_not_allowed"),
        ("PUT", "/v1/databases/pond/query", 405, "method_not_allowed"),
        ("BREW", "/v1/queries", 400, "http_invalid"),
        ("GET", "/v1/databases/%2e%2e%2fetc", 404, "not_found"),
        ("GET", "/v1/databases/nobody", 404, "database_not_found"),
        ("DELETE", "/v1/queries/q_nobody", 404, "query_not_found"),
    ],
)
def test_errors_of_the_framework_are_in_the_envelope(
    served: Served, method: str, path: str, status: int, code: str
) -> None:
    """Paths and methods that are not there say so in our words."""
    with served.client() as client:
        response = client.request(method, path)
    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("code", "status"),
    [("sql_invalid", 400), ("readers_busy", 503), ("query_timed_out", 408), ("disk_full", 507), ("worker_died", 502)],
)
def test_errors_of_a_query_have_their_status(served: Served, code: str, status: int) -> None:
    """Each error of the tree has its status; a 503 says when to try again; the private part stays private."""
    with served.client() as admin, served.client(served.key("reader")) as reader:
        response = reader.post("/v1/query", json={"sql": f"fail {code}"})
        assert response.status_code == status
        assert error_of(response)["code"] == code
        assert "/secret/place" not in response.text
        assert ("retry-after" in response.headers) == (status == 503)
        assert "/secret/place" in admin.post("/v1/query", json={"sql": f"fail {code}"}).text


def test_fault_of_ours_is_an_error_in_the_envelope(served: Served) -> None:
    """An exception that nobody foresaw answers 500 without its text, and the server goes on."""
    with served.client() as client:
        response = client.post("/v1/query", json={"sql": "crash"})
        assert response.status_code == 500
        assert error_of(response)["code"] == "internal"
        assert "ZeroDivision" not in response.text
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200


def test_queries_are_seen_and_killed_by_their_owner_and_by_administrators(served: Served) -> None:
    """A stranger neither sees nor kills a query; its owner does."""
    mine, other = served.key("reader"), served.key("reader")

    async def query() -> Any:
        async with httpx.AsyncClient(
            base_url=served.url, headers={"Authorization": f"Bearer {mine}"}, trust_env=False
        ) as client:
            return await client.post("/v1/query", json={"sql": "wait 10"}, timeout=20)

    import asyncio
    import threading

    from tests.support.keeper import wait_until

    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(query())))
    thread.start()
    with served.client(mine) as owner, served.client(other) as stranger, served.client() as admin:
        listed = wait_until(lambda: owner.get("/v1/queries").json()["queries"], what="the query")
        assert listed[0]["sql"] == "wait 10"
        assert stranger.get("/v1/queries").json() == {"queries": []}
        assert len(admin.get("/v1/queries").json()["queries"]) == 1
        assert stranger.delete("/v1/queries/q_wait").status_code == 404
        assert owner.delete("/v1/queries/q_wait").json()["state"] == "cancelled"
    thread.join(10)
    assert answers[0].status_code >= 400


def test_control_socket_is_private_and_needs_no_key(served: Served) -> None:
    """Whoever owns the socket's file is an administrator, whatever Host the request names."""
    assert stat.S_IMODE(served.socket_path.stat().st_mode) == 0o600
    transport = httpx.HTTPTransport(uds=str(served.socket_path))
    with httpx.Client(transport=transport, base_url="http://anything") as client:
        assert client.get("/v1/keys").status_code == 200
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200
    assert served.database.requests[-1].key_id == "local"
    assert served.database.requests[-1].client == f"pid {os.getpid()}"


def test_metrics_tell_of_requests_and_databases(served: Served) -> None:
    """The scrape counts requests by route, queries by outcome, and holds no path, key or statement."""
    with served.client() as client:
        client.post("/v1/query", json={"sql": "one"})
        client.post("/v1/query", json={"sql": "fail sql_invalid"})
        client.get("/v1/databases/pond")
        client.get("/some/path/of/mine")
        text = client.get("/metrics").text
    assert 'pondkeeper_queries_total{outcome="ok"} 1.0' in text
    assert 'pondkeeper_queries_total{outcome="sql_invalid"} 1.0' in text
    assert 'pondkeeper_http_requests_total{method="POST",route="/v1/query",status="200"} 1.0' in text
    assert 'route="/v1/databases/{name}"' in text
    assert 'pondkeeper_readers{state="idle"} 4.0' in text
    assert 'pondkeeper_snapshot_version{database="pond"} 7.0' in text
    assert 'pondkeeper_queue_depth{database="pond",priority="interactive"} 2.0' in text
    assert "some/path" not in text
    assert "pk_" not in text


def test_openapi_has_the_shapes_and_examples_of_the_hot_routes(served: Served) -> None:
    """The document names the real shapes, with examples that the server itself accepts, and resolves in itself."""
    with served.client() as client:
        document = client.get("/openapi.json").json()
        operation = document["paths"]["/v1/databases/{name}/query"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert client.post("/v1/query", json=example["value"]).status_code == 200
    schemas = document["components"]["schemas"]
    assert content["schema"] == {"$ref": "#/components/schemas/QueryBody"}
    assert set(schemas["QueryBody"]["properties"]) == {"sql", "parameters", "limits", "at_least"}
    assert "text/csv" in operation["responses"]["200"]["content"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for path, operations in document["paths"].items():
        for each in operations.values():
            assert ("security" in each) == (not path.startswith("/health/"))
            assert "422" not in each["responses"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []

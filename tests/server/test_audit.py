"""Every request that names data leaves a record, whatever became of it; without one nothing is answered."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from pondkeeper.access import audit_writing
from pondkeeper.access.audit_reading import Filter, newest, verify
from pondkeeper.client.pipeline import Pipeline
from pondkeeper.settings import AuditSettings
from tests.server.conftest import MakeServed, Served, read_all
from tests.support.keeper import KeeperProcess, wait_until


def recorded(served: Served, most: int = 100) -> list[dict[str, Any]]:
    """What is on disk once everything that was noted is."""
    wait_until(lambda: not served.audit._waiting)
    return newest(served.folder / "audit", Filter(), most)


def last(served: Served, count: int) -> dict[str, Any]:
    """The newest record, when there are `count` of them."""
    wait_until(lambda: len(newest(served.folder / "audit", Filter(), 1000)) >= count)
    return recorded(served)[-1]


def test_a_query_leaves_who_what_and_what_became_of_it(served: Served) -> None:
    reader = served.key("reader", "pond")
    with served.client(reader) as client:
        client.post("/v1/databases/pond/query", json={"sql": "one"})
    record = last(served, 1)
    assert (record["role"], record["database"], record["sql"], record["outcome"]) == ("reader", "pond", "one", "ok")
    assert (record["rows"], record["status"], record["version"]) == (1, 200, 7)
    assert record["size_bytes"] > 0
    assert record["from"].startswith("127.0.0.1:")
    assert record["key"] == reader.split("_")[1]


@pytest.mark.parametrize(
    ("method", "path", "body", "role", "outcome"),
    [
        ("POST", "/v1/query", {"sql": "fail query_timed_out"}, "reader", "query_timed_out"),
        ("POST", "/v1/query", {"sql": "crash"}, "reader", "internal"),
        ("POST", "/v1/query", {"sql": ""}, "reader", "invalid_request"),
        ("POST", "/v1/execute", {"sql": "insert"}, "reader", "forbidden"),
        ("POST", "/v1/execute", {"sql": "insert"}, "writer", "committed"),
        ("POST", "/v1/execute", {"statements": [{"sql": "a"}, {"sql": "b"}]}, "writer", "committed"),
        ("POST", "/v1/execute", {"sql": "fail outcome_unknown"}, "writer", "outcome_unknown"),
        ("GET", "/v1/databases", None, "reader", "ok"),
        ("GET", "/v1/databases/nobody", None, "reader", "forbidden"),
        ("GET", "/v1/keys", None, "writer", "forbidden"),
        ("POST", "/v1/keys", {"name": "new", "role": "writer"}, "admin", "ok"),
        ("DELETE", "/v1/keys/unknown", None, "admin", "key_not_found"),
        ("DELETE", "/v1/queries/q_unknown", None, "reader", "query_not_found"),
        ("GET", "/v1/nowhere", None, "reader", "not_found"),
        ("PUT", "/v1/query", None, "reader", "method_not_allowed"),
    ],
)
def test_every_ending_is_recorded(
    served: Served, method: str, path: str, body: Any, role: str, outcome: str
) -> None:
    databases = ("pond",) if role == "reader" else ()
    with served.client(served.key(role, *databases)) as client:
        client.request(method, path, json=body)
    record = last(served, 1)
    assert (record["outcome"], record["request"], record["role"]) == (outcome, f"{method} {path}", role)


def test_requests_without_a_key_are_recorded_and_health_checks_are_not(served: Served) -> None:
    with served.client(None) as client:
        for path in ("/health/live", "/health/ready", "/v1/databases"):
            client.get(path)
    record = last(served, 1)
    assert (record["outcome"], record["key"], record["request"]) == ("unauthenticated", None, "GET /v1/databases")
    assert len(recorded(served)) == 1


def test_an_answer_that_is_cut_or_that_nobody_waits_for_is_recorded(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(served.request(b'{"sql": "cut"}', "/v1/query?format=csv"))
        read_all(connection)
    assert last(served, 1)["outcome"] == "cut"
    assert last(served, 1)["limit"] == "max_rows"
    with served.connect() as connection:
        connection.sendall(served.request(b'{"sql": "wait 30"}'))
        wait_until(lambda: served.database.waiting)
    assert last(served, 2)["outcome"] == "gone"


@pytest.mark.fault
def test_without_an_audit_nothing_is_answered_and_nothing_is_asked(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    is_full = True

    def full(descriptor: int, data: bytes) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(audit_writing.os, "write", full)
    with served.client() as client:
        client.post("/v1/query", json={"sql": "one"})
        wait_until(lambda: served.audit.is_failing)
        asked = len(served.database.requests)
        refused = client.post("/v1/query", json={"sql": "one"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
        assert refused.headers["retry-after"]
        assert len(served.database.requests) == asked
        assert client.get("/health/live").status_code == 200
        assert client.get("/metrics").status_code == 200
        is_full = False
        wait_until(lambda: not served.audit.is_failing)
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200


def test_an_audit_may_be_at_best_effort(make_served: MakeServed, monkeypatch: pytest.MonkeyPatch) -> None:
    served = make_served(audit=AuditSettings(mode="best_effort"))

    def full(_: int, __: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with served.client() as client, monkeypatch.context() as patched:
        patched.setattr(audit_writing.os, "write", full)
        client.post("/v1/query", json={"sql": "one"})
        wait_until(lambda: served.audit.is_failing)
        assert client.post("/v1/query", json={"sql": "one"}).status_code == 200


def process_titles(keeper: KeeperProcess) -> bytes:
    """The command lines and environments of all processes of this user's keeper."""
    found = b""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found += (folder / "cmdline").read_bytes() + (folder / "comm").read_bytes()
        except OSError:
            continue
    return found


def test_secrets_are_nowhere(tmp_path: Path) -> None:
    """A key is planted wherever a caller can put one; then everything that the keeper has written is searched."""
    with KeeperProcess(tmp_path / "pond.duckdb", "--log-level", "debug") as keeper:
        made = [json.loads(keeper.cli("key", "create", f"k{n}", "--role", "admin", "--json").stdout)["token"] for n in range(2)]
        for token in made:
            secret = token.rsplit("_", 1)[1]
            with httpx.Client(base_url=keeper.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=20) as client:
                for path in (f"/v1/keys/{token}", f"/v1/queries/{token}", f"/{token}", f"/v1/databases/{token}"):
                    client.request("DELETE" if "keys" not in path else "GET", path)
                client.post("/v1/query", json={"sql": f"SELECT '{token}'"})
                client.post("/v1/query", json={"sql": f"SELECT {token}"})
                client.post("/v1/execute", json={"sql": f"SELECT '{token}'"}, headers={"Idempotency-Key": token})
                client.post("/v1/execute", json={"sql": f"INSERT INTO {token} VALUES (1)"})
                client.post("/v1/query", content=token.encode())
                client.get("/v1/databases", headers={"Authorization": f"Basic {token}"})
                client.get("/v1/databases", headers={"Authorization": f"Bearer {token[:-1]}x"})
                client.get("/v1/databases", headers={"Host": token})
                metrics = client.get("/metrics").text
                listed = client.get("/v1/keys").text
            assert secret not in metrics
            assert secret not in listed
            assert secret.encode() not in process_titles(keeper)
        keeper.stop()
        said = keeper.log()
        written = b"".join(
            path.read_bytes() for path in keeper.home.root.rglob("*") if path.is_file() and ".duckdb" not in path.name
        )
    assert verify(keeper.home.audit).records > 20
    for token in made:
        secret = token.rsplit("_", 1)[1]
        assert secret not in said
        assert secret.encode() not in written
        assert token.split("_")[1].encode() in written  # The control: records and rows of this key were looked through.


def test_each_write_of_a_pipeline_is_recorded(tmp_path: Path) -> None:
    """Equal writes that end together in the same way share a record, which says how many they are."""
    with KeeperProcess(tmp_path / "pond.duckdb") as keeper:
        keeper.client().execute("CREATE TABLE log (i INTEGER PRIMARY KEY)")
        with Pipeline(keeper.home.root) as pipeline:
            futures = [pipeline.execute("INSERT INTO log VALUES (?)", [number % 40]) for number in range(50)]
            failed = sum(future.exception(30) is not None for future in futures)
        assert failed == 10
        wait_until(lambda: sum(writes for writes, _ in of_pipelines(keeper)) == 50, what="records of all writes")
        found = of_pipelines(keeper)
    assert {record["sql"] for _, record in found} == {"INSERT INTO log VALUES (?)"}
    assert sum(writes for writes, record in found if record["outcome"] == "committed") == 40
    assert sum(record.get("rows", 0) for _, record in found) == 40


def of_pipelines(keeper: KeeperProcess) -> list[tuple[int, Any]]:
    """How many writes each record of a pipeline is about, and the record."""
    records = [record for record in newest(keeper.home.audit, Filter(), 100) if record["door"] == "pipeline"]
    return [(int(record["request"].split()[0]), record) for record in records]

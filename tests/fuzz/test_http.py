"""Requests made from the OpenAPI document, right and wrong, by every role and by none.

No 5xx but 503; no answer to the wrong role; and the keeper stays.
The long form, with schemathesis: `script/fuzz`.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pondkeeper.files.durable import make_folder
from tests.support.keeper import KeeperProcess

SECONDS = float(os.environ.get("PONDKEEPER_FUZZ_SECONDS", "15"))
ENOUGH = 100  # requests, however slow the machine
RANKS = {"none": -1, "reader": 0, "tables": 0, "writer": 1, "admin of one": 2, "admin": 2}
# Which role each operation takes; `every`: a key for every database. An operation that is not here fails the test.
NEEDS = {
    "POST /v1/databases/{name}/query": "reader", "POST /v1/query": "reader", "GET /v1/queries": "reader",
    "DELETE /v1/queries/{id}": "reader", "POST /v1/databases/{name}/execute": "writer", "POST /v1/execute": "writer",
    "POST /v1/databases/{name}/tables/{table}/rows": "writer", "POST /v1/tables/{table}/rows": "writer",
    "GET /v1/databases/{name}/rejects/{id}": "writer", "GET /v1/rejects/{id}": "writer", "GET /v1/databases": "reader",
    "GET /v1/databases/{name}": "reader", "GET /v1/databases/{name}/queue": "reader",
    "GET /v1/databases/{name}/snapshots": "whole", "POST /v1/databases/{name}/snapshots": "writer",
    "GET /v1/snapshots": "whole", "POST /v1/snapshots": "writer", "GET /v1/databases/{name}/tickets": "writer",
    "GET /v1/databases/{name}/rejects": "writer", "GET /v1/databases/{name}/tickets/{id}/body": "writer",
    "POST /v1/databases/{name}/tickets/{id}/retry": "writer", "GET /v1/databases/{name}/tickets/{id}": "writer", "DELETE /v1/databases/{name}/tickets/{id}": "writer",
    "GET /v1/events": "reader", "GET /v1/keys": "every admin", "POST /v1/keys": "every admin",
    "DELETE /v1/keys/{id}": "every admin", "GET /health/live": "none", "GET /health/ready": "none", "GET /metrics": "every",
    "GET /v1/backups": "whole", "GET /v1/databases/{name}/backups": "whole", "POST /v1/backups": "writer",
    "POST /v1/databases/{name}/backups": "writer", "POST /v1/backups/verify": "admin",
    "POST /v1/databases/{name}/backups/verify": "admin", "POST /v1/backups/prune": "every admin",
    "POST /v1/restore": "admin", "POST /v1/databases/{name}/restore": "admin", "POST /v1/databases/{name}/promote": "admin",
    "GET /v1/databases/{name}/replicas": "admin", "GET /v1/databases/{name}/replication": "admin",
    "POST /v1/databases/{name}/replication/blocks": "admin", "POST /v1/databases/{name}/replication/pages": "admin",
    "GET /v1/jobs": "whole", "GET /v1/jobs/{job}": "whole", "PATCH /v1/jobs/{job}": "admin", "POST /v1/jobs/{job}/runs": "writer",
    "POST /v1/jobs/{job}/accept-drift": "writer", "GET /v1/runs": "whole", "GET /v1/runs/{id}": "whole",
    "DELETE /v1/runs/{id}": "writer", "GET /v1/runs/{id}/log": "writer", "POST /v1/databases/{name}/loads": "writer",
}  # fmt: skip
SQL = st.sampled_from(
    ["SELECT 1", "FROM t", "FROM secret", "INSERT INTO t VALUES (1)", "DROP TABLE nobody", "SELECT * FROM range(10)", "", ";", "--",
     "EXPLAIN FROM t", "PIVOT t ON a", "SELECT $1", "SELECT ?::INTEGER", "COPY t TO 'x'", "SELECT 1; SELECT 2", "CREATE TABLE z (a INT)",
     "SELECT error('x')", "SELECT 1/0", "SELECT 'é\u0000'", "FROM duckdb_settings()", "SHOW TABLES"]
) | st.text(max_size=30)  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["pond", "other", "t", "...", "a/b", "%", "é", "x" * 300, "q_1", "keys", "admin"]) | st.text(min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))  # httpx resolves those
PLACES = {"name": st.just("pond") | st.just("pond") | NAMES, "table": st.just("t") | NAMES, "job": st.just("t") | NAMES}
JOBS = '[jobs.t]\nkind = "command"\ncommand = ["true"]\n\n[jobs.other]\nkind = "command"\ncommand = ["true"]\ndatabase = "secret"\n'
WORDS = st.sampled_from(["append", "upsert", "replace", "true", "false", "1", "0", "-1", "nan", "accepted", "committed", "json", "csv", "ndjson",
                         "arrow", "parquet", "published", "pond", ",", "\u0000"]) | st.text(max_size=6)  # fmt: skip
BODIES = st.binary(max_size=60) | st.sampled_from([b'{"a": 1}\n', b'[{"a": 2}]', b"a\n3\n", b"", b"{", b"[" * 500, b"PAR1", b"ARROW1"])


def of_schema(schema: dict[str, Any], components: dict[str, Any], name: str = "") -> st.SearchStrategy[Any]:  # noqa: C901  # Why: one case a line
    """Values that a schema allows, mostly."""
    if "$ref" in schema:
        return of_schema(components[schema["$ref"].rpartition("/")[2]], components, name)
    if name == "sql":
        return SQL
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return st.one_of([of_schema(each, components, name) for each in schema[word]])
    match schema.get("type"):
        case "object" if "properties" in schema:
            made = {key: of_schema(each, components, key) for key, each in schema["properties"].items()}
            needed = {key: made.pop(key) for key in schema.get("required", ()) if key in made}
            return st.fixed_dictionaries(needed, optional=made)
        case "array":
            return st.lists(of_schema(schema.get("items", {}), components), max_size=3)
        case "string":
            return NAMES
        case "integer" | "number":
            return st.integers(0, 5) | st.sampled_from([-1, 2**31, 2**63, 1e300, 0.5])
        case "boolean" | "null":
            return st.booleans() | st.none()
    return ANY


class Keeper:
    """A keeper with a key for each role, its document, and what was answered."""

    def __init__(self, process: KeeperProcess) -> None:
        self.process = process
        self.http = httpx.Client(base_url=process.url, trust_env=False, timeout=60)
        made = {"reader": [], "tables": ["-t", "t"], "writer": ["--role", "writer"],
                "admin of one": ["--role", "admin", "-d", "pond"], "admin": ["--role", "admin"]}  # fmt: skip
        self.tokens = {
            role: process.cli("key", "create", f"fuzz {role}", *options).stdout.strip() for role, options in made.items()
        }
        document = self.http.get("/openapi.json", headers=self.headers("reader")).json()
        self.components = document["components"]["schemas"]
        self.operations = {
            f"{method.upper()} {path}": operation for path, each in document["paths"].items() for method, operation in each.items()
        }
        self.answers: Counter[tuple[str, str, int]] = Counter()

    def headers(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"} if role in self.tokens else {}

    def requests(self) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
        return st.one_of([self._request(name, operation) for name, operation in self.operations.items()])

    def _request(self, name: str, operation: dict[str, Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
        parameters = operation.get("parameters", [])
        parts: dict[str, st.SearchStrategy[Any]] = {
            "path": st.fixed_dictionaries({each["name"]: PLACES.get(each["name"], NAMES) for each in parameters if each["in"] == "path"}),
            "query": st.dictionaries(st.sampled_from([each["name"] for each in parameters if each["in"] == "query"] or ["x"]), WORDS, max_size=3),
        }  # fmt: skip
        if content := operation.get("requestBody", {}).get("content", {}):
            shaped = of_schema(content.get("application/json", {}).get("schema", {}), self.components).map(_encoded)
            parts["body"] = shaped | shaped | ANY.map(_encoded) | BODIES
            parts["type"] = st.sampled_from(list(content))
        return st.tuples(st.just(name), st.fixed_dictionaries(parts))


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    limits = ["--readers", "2", "--timeout", "500ms", "--write-timeout", "1s", "--write-wait", "1s"]
    make_folder(folder / ".pondkeeper", durable=False)
    (folder / ".pondkeeper" / "pondkeeper.toml").write_text(JOBS)
    environment = {"PONDKEEPER_LIMITS_FAILED_LOGINS_PER_MIN": "0", "PONDKEEPER_INGEST_TIMEOUT_S": "2"}
    with KeeperProcess(folder / "pond.duckdb", *limits, environment=environment) as process:
        process.client().execute(["CREATE TABLE t (a INTEGER)", "CREATE TABLE secret AS SELECT 'hidden treasure' AS s"])
        process.client().take_snapshot()
        made = Keeper(process)
        yield made
        made.http.close()


def may(role: str, needs: str, on_other: bool) -> bool:
    """Whether that role may ever get a good answer to that."""
    if needs == "none":
        return True
    if role == "admin of one" and (needs.startswith("every") or on_other):
        return False
    if role == "tables" and needs not in ("reader", "every reader"):
        return False
    return RANKS[role] >= {"reader": 0, "whole": 0, "every": 0, "writer": 1, "admin": 2, "every admin": 2}[needs]


def test_each_operation_is_judged(keeper: Keeper) -> None:
    assert set(keeper.operations) == set(NEEDS)


@pytest.mark.timeout(200)  # the time is set by PONDKEEPER_FUZZ_SECONDS; a request on a busy machine may take its own
def test_no_request_gets_an_error_of_ours_or_an_answer_for_others(keeper: Keeper) -> None:
    end_at = time.monotonic() + SECONDS

    def ask(request: tuple[str, dict[str, Any]], role: str) -> None:
        name, parts = request
        method, path = name.split(" ", 1)
        for place, value in parts["path"].items():
            path = path.replace(f"{{{place}}}", quote(value, safe=""))
        headers = keeper.headers(role) | ({"Content-Type": parts["type"]} if "type" in parts else {})
        with keeper.http.stream(
            method, path, params=parts["query"], content=parts.get("body"), headers=headers
        ) as answer:  # Why streamed: events do not end
            code = "" if answer.is_success else json.loads(answer.read())["error"]["code"]
        status = answer.status_code
        keeper.answers[name, role, status] += 1
        assert status < 500 or status == 503, (request, role, status, code)
        on_other = parts["path"].get("name", "pond") != "pond"
        assert status >= 400 or may(role, NEEDS[name], on_other), (request, role, status)

    try:
        for number in range(100_000):  # Why in small runs: the time is bounded, and on a slow machine so is the number.
            seed(number)(_in_a_small_run(keeper, ask))()
            if time.monotonic() > end_at and sum(keeper.answers.values()) > ENOUGH:
                break
    except httpx.TransportError as error:  # an answer that was cut is the keeper's right; a keeper that is gone is not
        assert keeper.process.is_running(), error
        raise
    asked = sum(keeper.answers.values())
    good = {name for name, _, status in keeper.answers if status < 400}
    assert asked > ENOUGH, "too few to tell"
    assert len(good) > 5, "the requests are so wrong that they prove nothing"
    print(f"{asked} requests, {len(good)} of {len(NEEDS)} operations with a good answer: {Counter(s for _, _, s in keeper.answers.elements())}")
    assert keeper.http.get("/health/ready").status_code == 200
    assert "500" not in {line.split('status="')[1][:3] for line in _counted(keeper)}


def _in_a_small_run(keeper: Keeper, ask: Callable[..., None]) -> Callable[[], None]:
    """A Hypothesis test of thirty requests."""
    quiet = settings(
        max_examples=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )

    @quiet
    @given(keeper.requests(), st.sampled_from(list(RANKS)))
    def run(request: tuple[str, dict[str, Any]], role: str) -> None:
        ask(request, role)

    return run


def _counted(keeper: Keeper) -> list[str]:
    text = keeper.http.get("/metrics", headers=keeper.headers("admin")).text
    return [line for line in text.splitlines() if line.startswith("pondkeeper_http_requests_total{")]

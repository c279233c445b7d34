"""Requests that cannot be carried out: over HTTP and on the command line, each with code, remedy and the right status."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pondkeeper.errors import all_errors
from tests.bad_input import files
from tests.support.keeper import KeeperProcess

STATUS = {error.code: error.http_status for error in all_errors()}
EXIT_CODE = {error.code: error.exit_code for error in all_errors()}


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with two databases, `pond` and `other`."""
    folder = tmp_path_factory.mktemp("ponds")
    files.good(folder / "pond.duckdb", rows=1000)
    files.good(folder / "other.duckdb", rows=1)
    with KeeperProcess(folder, environment={"PONDKEEPER_SERVER_MAX_BODY_BYTES": "100kB"}) as keeper:
        client = keeper.client(database="pond")
        client.query("SELECT 1", at_least=client.execute("CREATE TABLE kept (x INTEGER PRIMARY KEY)").version)
        yield keeper


@pytest.fixture(autouse=True)
def the_keeper_stays_up(pond: KeeperProcess) -> Iterator[None]:
    """After whatever was sent, the same keeper answers, and nothing was written."""
    yield
    client = pond.client(database="pond")
    assert client.query("SELECT count(*) FROM t").scalar() == 1000
    assert client.query("SELECT count(*) FROM kept").scalar() == 0
    assert pond.client(database="other").query("SELECT count(*) FROM t").scalar() == 1
    assert "Traceback" not in pond.log()


def refused(answer: httpx.Response, code: str) -> dict[str, Any]:
    """The error of an answer, which has the status of its code, a message and a remedy, and no path of the server."""
    error: dict[str, Any] = answer.json()["error"]
    assert (error["code"], answer.status_code) == (code, STATUS[code]), error
    assert error["message"]
    assert error["remedy"]
    assert ".duckdb" not in error["message"] + error["remedy"]
    return error


def sent(pond: KeeperProcess, verb: str, body: Any, database: str = "pond", **options: Any) -> httpx.Response:
    with pond.http() as http:
        if isinstance(body, bytes):
            return http.post(f"/v1/databases/{database}/{verb}", content=body, **options)
        return http.post(f"/v1/databases/{database}/{verb}", json=body, **options)


QUERIES = [
    ("broken SQL", "SELEC 1", None, "sql_invalid"),
    ("an unknown table", "FROM nowhere", None, "sql_invalid"),
    ("an unknown column", "SELECT nothing FROM t", None, "sql_invalid"),
    ("an unknown function", "SELECT no_such_function(1)", None, "sql_invalid"),
    ("no statement", "-- nothing", None, "sql_invalid"),
    ("semicolons only", ";;", None, "sql_invalid"),
    ("a NUL", "SELECT 1\0; DROP TABLE kept", None, "sql_invalid"),
    ("a quote that is not closed", "SELECT 'x", None, "sql_invalid"),
    ("two statements", "SELECT 1; SELECT 2", None, "statement_not_allowed"),
    ("a write behind a read", "SELECT 1; INSERT INTO kept VALUES (1)", None, "statement_not_allowed"),
    ("a write", "INSERT INTO kept VALUES (1)", None, "statement_not_allowed"),
    ("a write in a CTE", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", None, None),
    ("a write to be explained", "EXPLAIN ANALYZE INSERT INTO kept VALUES (1)", None, "statement_not_allowed"),
    ("a file of the server", "SELECT * FROM read_text('/etc/passwd')", None, "statement_not_allowed"),
    ("a file as a table", "SELECT * FROM '/etc/passwd'", None, None),
    ("another database", "ATTACH 'x.duckdb'", None, "statement_not_allowed"),
    ("a setting", "SET memory_limit = '1TB'", None, "statement_not_allowed"),
    ("an extension", "INSTALL httpfs", None, "statement_not_allowed"),
    ("text where a number belongs", "SELECT 'a'::INTEGER", None, "statement_failed"),
    ("a wrong parameter type", "SELECT ?::INTEGER", ["twelve"], "statement_failed"),
    ("too few parameters", "SELECT ?, ?", [1], "parameter_invalid"),
    ("too many parameters", "SELECT ?", [1, 2], "parameter_invalid"),
    ("no parameters at all", "SELECT ?", None, "parameter_invalid"),
    ("a name that is not there", "SELECT $a", {"b": 1}, "parameter_invalid"),
    ("an integer too large for any type", "SELECT ?", [2**200], "parameter_invalid"),
    ("out of range", "SELECT 2::TINYINT * 100::TINYINT", None, "statement_failed"),
    ("an error on purpose", "SELECT error('on purpose')", None, "statement_failed"),
]


@pytest.mark.parametrize(("what", "sql", "parameters", "code"), QUERIES, ids=[each[0] for each in QUERIES])
def test_a_query_that_cannot_be_answered(
    pond: KeeperProcess, what: str, sql: str, parameters: Any, code: str | None
) -> None:
    """Each is refused by its own name over HTTP, and on the command line with the exit code of that name."""
    answer = sent(pond, "query", {"sql": sql} | ({} if parameters is None else {"parameters": parameters}))
    if code is None:  # which of the two the engine's line says is its own business
        code = answer.json()["error"]["code"]
        assert code in ("sql_invalid", "statement_not_allowed", "statement_failed")
    refused(answer, code)
    if parameters is None and "\0" not in sql:
        done = pond.cli("query", "-d", "pond", sql)
        assert done.returncode == EXIT_CODE[code]
        assert done.stdout == ""
        assert f"[{code}]" in done.stderr
        assert len(done.stderr.strip().splitlines()) >= 2, "a remedy follows"


WRITES = [
    ("broken SQL", {"sql": "INSER INTO kept VALUES (1)"}, "sql_invalid"),
    ("two statements in one text", {"sql": "INSERT INTO kept VALUES (1); SELECT 1"}, "statement_not_allowed"),
    ("a transaction of one's own", {"sql": "BEGIN"}, "statement_not_allowed"),
    ("a checkpoint", {"sql": "CHECKPOINT"}, "statement_not_allowed"),
    ("a file", {"sql": "COPY t TO 'x.csv'"}, "statement_not_allowed"),
    ("another database", {"sql": "ATTACH 'x.duckdb' AS x"}, "statement_not_allowed"),
    ("a file read into a table", {"sql": "CREATE TABLE p AS SELECT * FROM read_text('/etc/passwd')"}, None),
    ("a wrong type", {"sql": "INSERT INTO kept VALUES ('x')"}, "statement_failed"),
    ("a duplicate key", {"sql": "INSERT INTO kept VALUES (1), (1)"}, "statement_failed"),
    ("the second of two", {"statements": [{"sql": "INSERT INTO kept VALUES (1)"}, {"sql": "broken"}]}, "sql_invalid"),
    (
        "the third of three",
        {"statements": [{"sql": "INSERT INTO kept VALUES (?)", "parameters": [n]} for n in (1, 2, 1)]},
        "statement_failed",
    ),
    ("neither sql nor statements", {}, "invalid_request"),
]


@pytest.mark.parametrize(("what", "body", "code"), WRITES, ids=[each[0] for each in WRITES])
def test_a_write_that_cannot_be_carried_out(pond: KeeperProcess, what: str, body: Any, code: str | None) -> None:
    """Each is refused by its own name, and nothing of its transaction stays."""
    answer = sent(pond, "execute", body)
    if code is None:
        code = answer.json()["error"]["code"]
        assert code in ("sql_invalid", "statement_not_allowed", "statement_failed")
    refused(answer, code)


BODIES = [
    ("nothing", b""),
    ("JSON that ends too early", b'{"sql": "SELECT 1"'),
    ("no JSON", b"SELECT 1"),
    ("a list", b"[]"),
    ("invalid UTF-8", b'{"sql": "SELECT \'\xff\xfe\'"}'),
    ("UTF-16", '{"sql": "SELECT 1"}'.encode("utf-16")),
    ("a lonely surrogate", b'{"sql": "SELECT \'\\ud800\'"}'),
    ("sql that is a number", b'{"sql": 1}'),
    ("an unknown field", b'{"sql": "SELECT 1", "timeout": 1}'),
    ("a limit that is text", b'{"sql": "SELECT 1", "limits": {"timeout_s": "soon"}}'),
    ("a negative limit", b'{"sql": "SELECT 1", "limits": {"max_rows": -1}}'),
    ("a NaN", b'{"sql": "SELECT ?", "parameters": [NaN]}'),
    ("a hundred thousand brackets", b'{"sql": "x", "parameters": ' + b"[" * 40_000 + b"]" * 40_000 + b"}"),
]


@pytest.mark.parametrize("verb", ["query", "execute"])
@pytest.mark.parametrize(("what", "body"), BODIES, ids=[each[0] for each in BODIES])
def test_a_body_that_is_no_request(pond: KeeperProcess, verb: str, what: str, body: bytes) -> None:
    """It is refused as such, before anything sees it as SQL."""
    refused(sent(pond, verb, body), "invalid_request")


def test_a_body_too_large(pond: KeeperProcess) -> None:
    """It is refused with the limit in the error, by its announced length and by what really comes."""
    huge = {"sql": "SELECT 1 -- " + "x" * 200_000}
    assert refused(sent(pond, "query", huge), "body_too_large")["max_bytes"] == 100_000

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 5_000

    with pond.http() as http:
        refused(http.post("/v1/databases/pond/query", content=chunks()), "body_too_large")
    done = pond.cli("query", "-d", "pond", "-", stdin=huge["sql"])
    assert (done.returncode, done.stdout) == (EXIT_CODE["body_too_large"], "")


def test_an_unknown_database(pond: KeeperProcess) -> None:
    """It is named, for reading and for writing; without a name a keeper of two says so."""
    for verb in ("query", "execute"):
        assert (
            "nowhere"
            in refused(sent(pond, verb, {"sql": "SELECT 1"}, database="nowhere"), "database_not_found")["message"]
        )
        with pond.http() as http:
            refused(http.post(f"/v1/{verb}", json={"sql": "SELECT 1"}), "database_not_found")
    for command in (
        ("query", "-d", "nowhere", "SELECT 1"),
        ("query", "SELECT 1"),
        ("run", "-d", "nowhere", "--", "true"),
    ):
        done = pond.cli(*command)
        assert done.returncode == EXIT_CODE["database_not_found"], done.stderr
        assert done.stdout == ""


KEYS = [
    ("none", None),
    ("nothing after Bearer", "Bearer"),
    ("another scheme", "Basic cG9uZDpwb25k"),
    ("no key of ours", "Bearer hello"),
    ("the form of a key", "Bearer pk_000000000000_0000000000000000000000000000000000000000000"),
    ("not ASCII", "Bearer pk_ä_ö".encode()),
    ("much too long", "Bearer pk_" + "x" * 5000),
]


@pytest.mark.parametrize(("what", "header"), KEYS, ids=[each[0] for each in KEYS])
def test_a_key_that_is_none(pond: KeeperProcess, what: str, header: Any) -> None:
    """401 for every route but the health checks, and the token is not repeated."""
    headers = {} if header is None else {"Authorization": header}
    with httpx.Client(base_url=pond.url, headers=headers, trust_env=False) as http:
        for method, path in (
            ("POST", "/v1/databases/pond/query"),
            ("GET", "/v1/databases"),
            ("GET", "/metrics"),
            ("GET", "/nowhere"),
        ):
            answer = http.request(method, path, content=b"{}")
            error = refused(answer, "unauthenticated")
            assert "pk_000000000000_0" not in json.dumps(error)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert http.get("/health/live").status_code == 200


def test_a_secret_with_one_wrong_letter(pond: KeeperProcess) -> None:
    """The id of a live key is worth nothing without its secret; over the command line the exit code is 3."""
    wrong = pond.key[:-1] + ("A" if pond.key[-1] != "A" else "B")
    with httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {wrong}"}, trust_env=False) as http:
        refused(http.get("/v1/databases"), "unauthenticated")
    done = pond.cli("status", PONDKEEPER_URL=pond.url)
    assert done.returncode == 0  # by its home, which was typed
    done = pond_cli_remote(pond, wrong)
    assert done == (EXIT_CODE["unauthenticated"], "")


def pond_cli_remote(pond: KeeperProcess, key: str) -> tuple[int, str]:
    from tests.support.keeper import pondkeeper

    done = pondkeeper("query", "-d", "pond", "SELECT 1", PONDKEEPER_URL=pond.url, PONDKEEPER_KEY=key)
    return done.returncode, done.stdout


def test_a_key_of_another_database_and_of_a_lesser_role(pond: KeeperProcess) -> None:
    """403, the same for a database that exists and for one that does not."""
    token = pond.local_client().create_key("narrow", "reader", databases=["other"])["token"]
    with httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as http:
        body = {"sql": "SELECT 1"}
        assert http.post("/v1/databases/other/query", json=body).status_code == 200
        messages = {
            refused(http.post(f"/v1/databases/{name}/query", json=body), "forbidden")["message"].replace(name, "…")
            for name in ("pond", "nowhere")
        }
        assert len(messages) == 1
        refused(http.post("/v1/databases/other/execute", json=body), "forbidden")
        refused(http.get("/v1/keys"), "forbidden")


def test_bytes_that_are_no_http(pond: KeeperProcess) -> None:
    """A TLS greeting and plain nonsense are answered as far as they can be, and harm nobody."""
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, b"hello\r\n\r\n", b"\0" * 1000):
        with socket.create_connection(("127.0.0.1", pond.port), timeout=10) as connection:
            connection.sendall(nonsense)
            assert b"http_invalid" in connection.recv(65536)


def test_paths_and_methods_that_are_none(pond: KeeperProcess) -> None:
    """404 and 405 in our own envelope."""
    with pond.http() as http:
        refused(http.get("/v1/nowhere"), "not_found")
        refused(http.get("/v1/databases/pond/query"), "method_not_allowed")
        refused(http.delete("/v1/queries/q_0000000000000000"), "query_not_found")
        refused(
            http.post("/v1/databases/pond/query", json={"sql": "SELECT 1"}, headers={"Accept": "image/png"}),
            "not_acceptable",
        )

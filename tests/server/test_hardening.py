"""HTTP on an open network: TLS, bounds, CORS, headers, and no path of this machine in any answer."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pondkeeper.errors import SettingInvalid
from pondkeeper.server.bounds import Bounds
from pondkeeper.server.cors import Cors
from pondkeeper.server.tls import tls_context
from pondkeeper.settings import ServerSettings
from tests.server.conftest import MakeServed, Served, read_all
from tests.support.keeper import KeeperProcess, pondkeeper, wait_until

PAGE = "https://app.example.com"
SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def secure(make_served: MakeServed, certificate: tuple[Path, Path]) -> Served:
    """A server with TLS and little patience."""
    cert, key = map(str, certificate)
    bounds = Bounds(header_timeout_s=0.5, body_timeout_s=0.5, linger_s=0.3, unsent_bytes=64 * 1024)
    return make_served(bounds=bounds, server=ServerSettings(tls_cert=cert, tls_key=key))


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture
def tls_connection(secure: Served, trusting: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with secure.connect() as plain, trusting.wrap_socket(plain, server_hostname="localhost") as connection:
        yield connection


def test_https_serves_with_the_certificate_given(secure: Served, trusting: ssl.SSLContext) -> None:
    with secure.client(verify=trusting) as client:
        answer = client.post("/v1/query", json={"sql": "one"})
        large = client.post("/v1/query?format=csv", json={"sql": "stream 40 100000"})
    assert answer.json()["rows"] == [[1]]
    assert answer.headers["strict-transport-security"]
    assert len(large.content) == 40 * 100_000


def test_without_trust_there_is_no_answer(secure: Served) -> None:
    with secure.client() as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client.get("/health/live")


def test_https_speaks_no_old_tls(secure: Served, trusting: ssl.SSLContext) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        trusting.maximum_version = ssl.TLSVersion.TLSv1_1
    with secure.connect() as plain, pytest.raises((ssl.SSLError, OSError)):
        trusting.wrap_socket(plain, server_hostname="localhost")


def test_plain_http_on_https_gets_nothing(secure: Served) -> None:
    with secure.connect() as connection:
        connection.sendall(secure.request(b'{"sql": "one"}'))
        assert b"200" not in read_all(connection)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_handshake_that_does_not_come_is_not_waited_for(secure: Served, sent: bytes) -> None:
    began = time.monotonic()
    with secure.connect() as connection:
        connection.sendall(sent)
        read_all(connection)
    assert time.monotonic() - began < 15


def test_slow_heads_and_bodies_are_not_waited_for_over_tls(secure: Served, tls_connection: ssl.SSLSocket) -> None:
    tls_connection.sendall(secure.request(b"", "/v1/query", "Content-Length: 5000"))
    assert b" 408 " in read_all(tls_connection)


def test_a_client_that_takes_nothing_is_let_go_over_tls(secure: Served, tls_connection: ssl.SSLSocket) -> None:
    tls_connection.sendall(secure.request(b'{"sql": "stream 4000 100000"}', "/v1/query?format=csv"))
    wait_until(lambda: secure.database.streams and secure.database.streams[0].is_cancelled)
    assert secure.database.streams[0].sent < 4000


def test_a_client_that_goes_away_ends_its_query_over_tls(secure: Served, trusting: ssl.SSLContext) -> None:
    with secure.connect() as plain, trusting.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(secure.request(b'{"sql": "wait 30"}'))
        wait_until(lambda: secure.database.waiting)
    wait_until(lambda: secure.database.cancelled)


def test_files_that_are_no_certificate_are_an_error_with_its_remedy(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    (tmp_path / "junk.pem").write_text("junk")
    for settings in (
        ServerSettings(tls_cert=str(tmp_path / "missing.pem")),
        ServerSettings(tls_cert=str(tmp_path / "junk.pem"), tls_key=str(key)),
        ServerSettings(tls_cert=str(cert), tls_key=str(cert)),
        ServerSettings(tls_key=str(key)),
    ):
        with pytest.raises(SettingInvalid) as refused:
            tls_context(settings)
        assert str(tmp_path) not in refused.value.message
    assert tls_context(ServerSettings()) is None


def test_a_keeper_serves_https_and_says_so(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    keeper = KeeperProcess(tmp_path / "pond.duckdb", "--tls-cert", cert, "--tls-key", key).launch()
    try:
        wait_until(keeper.home.keeper_json.exists, timeout_s=30)
        url = json.loads(keeper.home.keeper_json.read_text())["url"]
        assert url == f"https://127.0.0.1:{keeper.port}"
        assert httpx.get(f"{url}/health/live", verify=ssl.create_default_context(cafile=cert), trust_env=False).status_code == 200
        assert keeper.cli("query", "SELECT 1").returncode == 0
        token = keeper.cli("key", "create", "x").stdout.strip()
        trusted = pondkeeper("query", "SELECT 7 AS x", "--url", url, PONDKEEPER_KEY=token, SSL_CERT_FILE=cert)
        doubted = pondkeeper("query", "SELECT 7 AS x", "--url", url, PONDKEEPER_KEY=token)
        assert trusted.stdout.split() == ["x", "7"], trusted.stderr
        assert "CERTIFICATE_VERIFY_FAILED" in doubted.stderr
    finally:
        keeper.dispose()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/databases"), ("GET", "/nowhere"), ("GET", "/health/live"), ("POST", "/v1/query"), ("GET", "/metrics")]
)
@pytest.mark.parametrize("token", ["", None])
def test_answers_are_safe_to_be_met_by_a_browser(served: Served, method: str, path: str, token: str | None) -> None:
    with served.client(token) as client:
        answer = client.request(method, path, json={"sql": "one"} if method == "POST" else None)
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


def test_no_page_of_another_origin_may_ask_by_default(served: Served) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    with served.client(None) as client:
        refused = client.options("/v1/query", headers=asks)
    assert refused.status_code == 401
    assert not [name for name in refused.headers if name.startswith("access-control")]


def test_the_origins_that_are_named_may_ask(make_served: MakeServed) -> None:
    served = make_served(server=ServerSettings(cors_origins=(PAGE,)))
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    with served.client() as client, served.client(None) as stranger:
        before = stranger.options("/v1/query", headers=asks)
        asked = client.post("/v1/query", json={"sql": "one"}, headers={"Origin": PAGE})
        failed = stranger.post("/v1/query", json={"sql": "one"}, headers={"Origin": PAGE})
        for other in ("https://evil.example", f"{PAGE}.evil.example", "null", "http://app.example.com", f"{PAGE}:444"):
            wrong = client.post("/v1/query", json={"sql": "one"}, headers={"Origin": other})
            assert "access-control-allow-origin" not in wrong.headers
            assert stranger.options("/v1/query", headers=asks | {"Origin": other}).status_code == 401
    assert (before.status_code, before.headers["access-control-allow-origin"], before.headers["vary"]) == (204, PAGE, "Origin")
    assert "authorization" in before.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in before.headers
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, PAGE)
    assert (failed.status_code, failed.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize("origin", ["*", "null", "app.example.com", "https://app.example.com/", "https://*.example.com", "HTTPS://X.com"])
def test_an_origin_is_written_as_a_browser_sends_it(origin: str) -> None:
    with pytest.raises(SettingInvalid):
        Cors([origin])


def test_a_url_has_a_longest(make_served: MakeServed) -> None:
    served = make_served(server=ServerSettings(max_url_bytes=300))
    with served.client() as client:
        assert client.get("/v1/databases?" + "x" * 280).status_code == 200
        refused = client.get("/v1/databases?" + "x" * 300)
        assert (refused.status_code, refused.json()["error"]["code"]) == (414, "url_too_long")
        assert client.get("/health/live").status_code == 200


def test_an_endless_url_is_not_read_to_its_end(hasty: Served) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET /" + b"x" * 10_000)
        connection.shutdown(socket.SHUT_WR)
        assert b" 414 " in read_all(connection)


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper whose database has a table."""
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--readers", "1") as keeper:
        keeper.client().execute("CREATE TABLE t AS SELECT 1 AS a")
        yield keeper


@pytest.mark.parametrize("role", ["reader", "writer", "admin of one"])
def test_no_path_of_the_server_is_in_an_answer(pond: KeeperProcess, role: str) -> None:
    """Whoever is not an administrator of the whole keeper learns no path, from no route and by no error."""
    folder = str(pond.target.parent)
    kind = ["--role", "admin", "-d", "pond"] if role == "admin of one" else ["--role", role]
    token = pond.cli("key", "create", f"guest as {role}", *kind).stdout.strip()
    requests = [("GET", path, None) for path in _listed(pond.url, pond.key)]
    for sql in ("SELECT 1", "FROM nobody", "FROM '/etc/passwd'", "FROM 'x.csv'", "ATTACH 'y.duckdb'", "COPY t TO 'z.csv'", "LOAD httpfs",
                "SELECT read_text('pond.duckdb')", "CHECKPOINT", "SET threads = 1", "IMPORT DATABASE 'x'", "CREATE TABLE t (b INT)"):  # fmt: skip
        requests += [("POST", path, {"sql": sql}) for path in ("/v1/query", "/v1/execute", "/v1/databases/pond/query")]
    requests += [("POST", "/v1/snapshots", None), ("POST", "/v1/keys", {"name": "x"}), ("GET", "/v1/databases/../../etc", None)]
    with httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60) as client:
        assert client.get("/v1/databases").is_success, "the positive control: the key is one"
        answers = [(each, client.request(each[0], each[1], json=each[2])) for each in requests]
    with httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {pond.key}"}, trust_env=False, timeout=60) as client:
        control = client.get("/v1/snapshots").text
    assert folder in control
    for asked, answer in answers:
        shown = answer.text + str(answer.headers)
        assert folder not in shown, (asked, shown)
        assert "site-packages" not in shown
        assert ".pondkeeper" not in shown


def _listed(url: str, token: str) -> list[str]:
    """Every GET of the OpenAPI document, with a database that is there."""
    headers = {"Authorization": f"Bearer {token}"}
    document = httpx.get(f"{url}/openapi.json", headers=headers, trust_env=False).json()
    names = {"name": "pond", "table": "t", "id": "x"}
    paths = [path for path, operations in document["paths"].items() if "get" in operations and "events" not in path]
    return [path.format_map(_Names(names)) for path in paths]


class _Names(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "x"

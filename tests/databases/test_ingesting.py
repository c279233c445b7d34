"""Ingests into a running keeper: over HTTP and the client, beside everything else that goes on, and when things die."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa
import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import (
    BodyTooLarge,
    ColumnsDiffer,
    DatabaseBusy,
    DiskFull,
    Forbidden,
    IdempotencyConflict,
    PondkeeperError,
    QueryCancelled,
    RejectsNotFound,
    RequestTooSlow,
    RowsInvalid,
    TableNotFound,
    WorkerDied,
    WriteTimedOut,
)
from tests.bad_input.places import MIB, SmallDisk, with_a_small_disk
from tests.staging.conftest import as_arrow, as_parquet
from tests.support.asking import Asked
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.programs import Program

ONE = b'{"n": 1}\n'


def rows(begin: int, end: int) -> bytes:
    return b"".join(b'{"n": %d}\n' % n for n in range(begin, end))


def send(keeper: KeeperProcess, body: Any, query: str = "", table: str = "t", **headers: str) -> httpx.Response:
    """One bare request, without the client's repetitions."""
    with keeper.http() as bare:
        return bare.post(
            f"/v1/tables/{quote(table, safe='')}/rows?{query}",
            content=body,
            headers={"Content-Type": "application/x-ndjson"} | {name.replace("_", "-"): value for name, value in headers.items()},
        )


def code_of(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def spool_of(keeper: KeeperProcess) -> list[str]:
    """Bodies and folders of ingests under way."""
    paths = keeper.database
    return [path.name for folder in (paths.incoming, paths.staging) for path in folder.iterdir()]


@pytest.fixture(autouse=True)
def nothing_stays(pond: KeeperProcess) -> Iterator[None]:
    """Whatever became of an ingest, its files are gone a moment later."""
    yield
    wait_until(lambda: not spool_of(pond), what="an empty spool")


def count(client: Client, version: int | None, table: str = "t") -> int:
    return int(client.query(f"SELECT count(*) FROM {table}", at_least=version, timeout_s=25).scalar())


# The way through


def test_an_ingest_over_http(pond: KeeperProcess, client: Client) -> None:
    """200 with outcome, version and rows; the rows are in that version."""
    answer = send(pond, rows(0, 100))

    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert {name: said[name] for name in ("outcome", "rows", "rejected")} == {"outcome": "committed", "rows": 100, "rejected": 0}
    assert count(client, said["version"]) == 100


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"n\r\n1\r\n2\r\n", "text/csv"),
        (b'[{"n": 1}, {"n": 2}]', "application/json"),
        (b'{"columns": [{"name": "n"}], "rows": [[1], [2]]}', "application/json"),
        (as_arrow(pa.table({"n": [1, 2]})), "application/vnd.apache.arrow.stream"),
        (as_parquet(pa.table({"n": [1, 2]})), "application/vnd.apache.parquet"),
    ],
)
def test_formats_by_their_content_type(pond: KeeperProcess, client: Client, body: bytes, content_type: str) -> None:
    answer = send(pond, body, Content_Type=content_type)
    assert answer.json()["rows"] == 2
    assert count(client, answer.json()["version"]) == 2


def test_an_empty_body(pond: KeeperProcess, client: Client) -> None:
    """No rows are committed; or it is no body of that format."""
    answer = send(pond, b"")
    assert (answer.status_code, answer.json()["rows"]) == (200, 0)
    for content_type in ("text/csv", "application/json", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"):
        answer = send(pond, b"", Content_Type=content_type)
        assert (answer.status_code, code_of(answer)) == (400, "body_invalid"), content_type


def test_what_the_client_takes(client: Client, tmp_path: Path) -> None:
    """Paths, bytes, files, dicts, generators of dicts, Arrow tables and readers."""
    path = tmp_path / "rows.ndjson"
    path.write_bytes(rows(0, 10))
    table = pa.table({"n": range(20, 30)})
    with path.open("rb") as file:
        outcomes = [
            client.ingest("t", path),
            client.ingest("t", rows(10, 20), format="ndjson"),
            client.ingest("main.t", table),
            client.ingest("t", pa.RecordBatchReader.from_batches(table.schema, pa.table({"n": range(30, 40)}).to_batches())),
            client.ingest("t", [{"n": n} for n in range(40, 50)]),
            client.ingest("t", ({"n": n} for n in range(50, 60))),
            client.ingest("t", file, format="ndjson", mode="upsert", on_error="reject"),
        ]
    assert [outcome.rows for outcome in outcomes] == [10] * 7
    assert count(client, outcomes[-1].version) == 60
    with pytest.raises(PondkeeperError, match="format"):
        client.ingest("t", b"x")


def test_a_million_rows(client: Client) -> None:
    """In pieces, without a length, in one transaction."""
    pieces = (rows(n * 50_000, (n + 1) * 50_000) for n in range(20))

    outcome = client.ingest("t", pieces, format="ndjson")

    answer = client.query("SELECT count(*), sum(n)::BIGINT FROM t", at_least=outcome.version, timeout_s=25)
    assert answer.rows == [[1_000_000, 1_000_000 * 999_999 // 2]]


def test_rejects_are_kept_and_shown(pond: KeeperProcess, client: Client) -> None:
    """The good rows are there; the bad ones can be fetched by their name, with line and reason."""
    outcome = client.ingest("t", b'{"n": 1}\n{"n": "x"}\n{"n": 3}\n', format="ndjson", on_error="reject")

    assert (outcome.rows, outcome.rejected) == (2, 1)
    assert outcome.rejects is not None
    assert [(row["line"], row["record"]) for row in client.rejects(outcome.rejects)] == [(2, {"n": "x"})]
    assert [row["line"] for row in client.rejects(outcome.rejects, database="pond")] == [2]
    for name in ("r_0123456789abcdef", "..%2Fr_0123456789abcdef", "x"):
        with pytest.raises(RejectsNotFound):
            list(client.rejects(name))


def test_rows_that_break_constraints_are_rejects_too(pond: KeeperProcess, client: Client) -> None:
    """Keys that the table has, twins, CHECK and foreign keys: put aside with their lines, the others committed at once."""
    for sql in (
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "INSERT INTO parents VALUES (1)",
        "CREATE TABLE strict (n INTEGER PRIMARY KEY CHECK (n < 100), parent INTEGER REFERENCES parents (id))",
        "INSERT INTO strict VALUES (1, 1)",
    ):
        client.execute(sql)
    lines = b'{"n": 1}\n{"n": 2}\n{"n": 2}\n{"n": 500}\n{"n": 4, "parent": 9}\n{"n": "x"}\n{"n": 5, "parent": 1}\n'

    outcome = client.ingest("strict", lines, format="ndjson", on_error="reject")

    assert (outcome.rows, outcome.rejected) == (2, 5)
    assert outcome.rejects is not None
    told = {row["line"]: row["faults"][0]["reason"] for row in client.rejects(outcome.rejects)}
    parts = {1: "another row of the table", 3: "a row before it", 4: "CHECK", 5: "FOREIGN KEY", 6: "is no INTEGER"}
    assert all(part in told[line] for line, part in parts.items()), told
    kept = client.query("SELECT n FROM strict ORDER BY n", at_least=outcome.version, timeout_s=25)
    assert kept.rows == [[1], [2], [5]]
    assert not list((pond.home.root / "temp").glob("*/broken-*")), "what the writer had found was left behind"


def test_the_keepers_own_schema_is_not_among_the_tables(pond: KeeperProcess, client: Client) -> None:
    """It is there, since a write had a key, and no listing of ours has it, nor does an ingest go into it."""
    version = client.execute("INSERT INTO t VALUES (70000)").version
    schemas = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = '_pondkeeper'"
    assert client.query(schemas, at_least=version, timeout_s=25).scalar() == 1, "the positive control"

    assert all("idempotency" not in str(row) for row in client.query("SHOW TABLES").rows)
    assert "idempotency" not in json.dumps(client.status("pond"))
    refused = send(pond, ONE, table="_pondkeeper.idempotency")
    assert refused.status_code == 400
    token = client.create_key("some tables", "reader", tables=["t"])["token"]
    with pytest.raises(PondkeeperError):
        pond.client(token).query("SELECT * FROM _pondkeeper.idempotency")
    shown = pond.client(token).query("SELECT table_name FROM information_schema.tables").rows
    assert all("idempotency" not in str(row) for row in shown)


@pytest.mark.parametrize("wait", ["commit", "accepted"])
def test_the_time_of_a_key_holds_for_its_ingests(pond: KeeperProcess, client: Client, wait: str) -> None:
    """A body that comes more slowly than the key may take is refused; the same body of another key is not."""

    def slowly() -> Iterator[bytes]:
        for number in range(4):
            yield b'{"n": %d}\n' % (9000 + number)
            time.sleep(0.2)

    def sent(token: str) -> httpx.Response:
        with httpx.Client(base_url=pond.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as bare:
            return bare.post(
                f"/v1/tables/t/rows?wait={wait}", content=slowly(), headers={"Content-Type": "application/x-ndjson"}
            )

    hurried = client.create_key(f"hurried {wait}", "writer", limits={"timeout_s": 0.3})["token"]
    patient = client.create_key(f"patient {wait}", "writer", limits={"timeout_s": 60})["token"]
    refused = sent(hurried)

    assert (refused.status_code, code_of(refused)) == (408, "write_timed_out")
    assert sent(patient).is_success
    # Also so that what was only accepted does not arrive amid the next test.
    wait_until(lambda: client.query("SELECT count(*) FROM t").rows == [[4]], what="the rows of the patient key")


def test_refusals(client: Client) -> None:
    """What staging finds comes with its details, and nothing is there."""
    with pytest.raises(RowsInvalid) as bad:
        client.ingest("t", b'{"n": 1}\n{"n": "x"}\n', format="ndjson")
    assert bad.value.details["rows"][0]["line"] == 2
    with pytest.raises(ColumnsDiffer):
        client.ingest("t", b'{"m": 1, "n": 2}\n', format="ndjson")
    with pytest.raises(TableNotFound):
        client.ingest("nope", ONE, format="ndjson")
    client.ingest("t", ONE, format="ndjson")
    with pytest.raises(PondkeeperError, match="uplicate key"):
        client.ingest("t", rows(0, 5), format="ndjson")
    assert count(client, client.execute("INSERT INTO t VALUES (100)").version) == 2


def test_a_table_that_was_just_made(client: Client) -> None:
    """What this client has been told is committed is known, though no snapshot has it yet."""
    for number in range(5):
        client.execute(f"CREATE OR REPLACE TABLE fresh (n BIGINT, c{number} INTEGER)")
        assert client.ingest("fresh", b'{"n": 1, "c%d": 2}\n' % number, format="ndjson").rows == 1
    client.execute("DROP TABLE fresh")
    with pytest.raises(TableNotFound):
        client.ingest("fresh", ONE, format="ndjson")


def test_tables_that_change_all_the_time(pond: KeeperProcess, client: Client) -> None:
    """Staged for a table that is another by the time of its turn, an ingest is staged again; never loaded wrong."""
    client.execute("CREATE TABLE moving (n BIGINT, x INTEGER)")
    other = pond.client()

    def move() -> int:
        for number in range(30):
            other.execute(f"ALTER TABLE moving ADD COLUMN c{number} INTEGER DEFAULT {number}")
        return 30

    moving = Asked(move)
    taken = 0
    while not moving.is_done():
        taken += client.ingest("moving", b'{"n": %d, "x": 7}\n' % taken, format="ndjson").rows or 0
    assert moving.outcome() == 30
    version = client.execute("INSERT INTO moving (n) VALUES (-1)").version
    answer = client.query("SELECT count(*), count(*) FILTER (x = 7), count(DISTINCT n) FROM moving", at_least=version)
    assert answer.rows == [[taken + 1, taken, taken + 1]]
    client.execute("DROP TABLE moving")


def test_replace_is_seen_whole(pond: KeeperProcess, client: Client) -> None:
    """Readers see the old rows or the new ones, never fewer and never both."""
    version = client.ingest("t", rows(0, 1000), format="ndjson").version
    reader = pond.client()
    seen: set[tuple[int, int]] = set()

    def replace() -> int | None:
        version = None
        for number in range(1, 8):
            version = client.ingest("t", rows(number * 500, number * 500 + 1000), format="ndjson", mode="replace").version
        return version

    replacing = Asked(replace)
    while not replacing.is_done():
        seen.add(tuple(reader.query("SELECT count(*), min(n) % 500 FROM t", at_least=version, timeout_s=25).rows[0]))
    assert count(client, replacing.outcome()) == 1000
    assert seen == {(1000, 0)}


def test_beside_statements(pond: KeeperProcess, client: Client) -> None:
    """Ingests and statements of several clients at once: every acknowledged row is there, once."""
    client.execute("CREATE TABLE busy (who VARCHAR, n BIGINT)")

    def ingest(who: int) -> int:
        mine = pond.client()
        return sum(
            mine.ingest("busy", b"".join(b'{"who": "i%d", "n": %d}\n' % (who, 100 * turn + n) for n in range(100)), format="ndjson").rows
            or 0
            for turn in range(10)
        )

    def execute(who: int) -> int:
        mine = pond.client()
        for n in range(100):
            mine.execute("INSERT INTO busy VALUES (?, ?)", [f"e{who}", n])
        return 100

    asked = [Asked(lambda who=who: ingest(who)) for who in range(3)] + [Asked(lambda who=who: execute(who)) for who in range(3)]
    done = [each.outcome(60) for each in asked]

    assert done == [1000] * 3 + [100] * 3
    version = client.execute("INSERT INTO busy VALUES ('last', 0)").version
    answer = client.query("SELECT count(*), count(DISTINCT (who, n)) FROM busy", at_least=version, timeout_s=25)
    assert answer.rows == [[3301, 3301]]
    client.execute("DROP TABLE busy")


# Repeated


def test_an_idempotent_repeat(pond: KeeperProcess, client: Client) -> None:
    """The same key and body get the first outcome, rejects and all; another body is refused; the rows are there once."""
    body = b'{"n": 1}\n{"n": "x"}\n'
    first = send(pond, body, "on_error=reject", Idempotency_Key="again").json()
    second = send(pond, body, "on_error=reject", Idempotency_Key="again").json()

    told = ("outcome", "rows", "rejected", "rejects")
    assert {name: first[name] for name in told} == {name: second[name] for name in told}
    assert second["version"] >= first["version"]
    assert count(client, second["version"]) == 1
    assert [row["line"] for row in client.rejects(second["rejects"])] == [2]
    for query in ("on_error=reject", "on_error=reject&mode=upsert"):
        other = send(pond, body + ONE, query, Idempotency_Key="again")
        assert (other.status_code, code_of(other)) == (409, IdempotencyConflict.code)


def test_a_repeat_that_cannot_be_staged_any_more(pond: KeeperProcess, client: Client) -> None:
    """The first outcome is told also when the table has gone since."""
    client.execute("CREATE TABLE shortlived (n BIGINT)")
    first = send(pond, ONE, table="shortlived", Idempotency_Key="gone since").json()
    client.execute("DROP TABLE shortlived")

    second = send(pond, ONE, table="shortlived", Idempotency_Key="gone since")

    assert second.status_code == 200, second.text
    assert second.json()["rows"] == first["rows"] == 1
    assert code_of(send(pond, ONE, table="shortlived", Idempotency_Key="never before")) == TableNotFound.code


# Its turn


def test_staging_needs_no_lease(pond: KeeperProcess, client: Client) -> None:
    """While a program has the database, a bad body is refused at once, and a good one is loaded when the program ends."""
    with Program(pond.target).there() as program:
        with pytest.raises(RowsInvalid):
            client.ingest("t", b'{"n": "x"}\n', format="ndjson")
        waiting = Asked(lambda: client.ingest("t", rows(0, 1000), format="ndjson"))
        shown = wait_until(lambda: pond.client().queue()["writes"], what="an ingest in the queue")
        assert shown[0]["sql"].startswith("INGEST INTO main.t")
        assert not waiting.is_done()
        code, _ = program.let_go()
        assert code == 0
        assert waiting.outcome().rows == 1000


def test_a_client_that_goes_away_before_its_turn(pond: KeeperProcess, client: Client) -> None:
    """Its ingest is dropped, and its files go."""
    with Program(pond.target).there():
        connection = http.client.HTTPConnection("127.0.0.1", pond.port, timeout=30)
        headers = {"Authorization": f"Bearer {pond.key}", "Content-Type": "application/x-ndjson"}
        connection.request("POST", "/v1/tables/t/rows", body=rows(0, 1000), headers=headers)
        wait_until(lambda: client.queue()["writes"], what="an ingest in the queue")
        connection.close()
        wait_until(lambda: not client.queue()["writes"], what="an empty queue")
        wait_until(lambda: not spool_of(pond), what="an empty spool")
    assert count(client, client.execute("INSERT INTO t VALUES (-1)").version) == 1


def test_a_deadline(pond: KeeperProcess, client: Client) -> None:
    """It covers the wait for the turn as well, and the answer says who has the database."""
    with Program(pond.target, "--reason", "nightly").there():
        with pytest.raises((DatabaseBusy, WriteTimedOut)) as late:
            client.ingest("t", rows(0, 10), format="ndjson", timeout_s=1.0, idempotency_key="too late")
        assert "nightly" in late.value.message
    assert count(client, client.execute("INSERT INTO t VALUES (-1)").version) == 1


def test_an_ingest_is_cancelled_by_its_id(pond: KeeperProcess, client: Client) -> None:
    """It stands in the list of what runs, and can be dropped from there."""
    with Program(pond.target).there():
        waiting = Asked(lambda: client.ingest("t", rows(0, 10), format="ndjson"))
        other = pond.client()
        (entry,) = wait_until(lambda: [each for each in other.queries() if each["kind"] == "ingest"], what="the ingest")
        wait_until(lambda: other.queue()["writes"], what="an ingest in the queue")
        other.cancel(entry["id"])
        assert isinstance(waiting.outcome(), QueryCancelled)


# Roles


def test_roles(pond: KeeperProcess, client: Client) -> None:
    """A writer may ingest and see rejects; a reader may do neither, nor a writer of another database."""
    keys = {role: client.create_key(f"ingest {role}", role)["token"] for role in ("reader", "writer")}
    elsewhere = client.create_key("ingest elsewhere", "writer", databases=["other"])["token"]
    writer = pond.client(keys["writer"])
    outcome = writer.ingest("t", b'{"n": 1}\n{"n": "x"}\n', format="ndjson", on_error="reject")
    assert outcome.rejects is not None
    assert len(list(writer.rejects(outcome.rejects))) == 1
    for token in (keys["reader"], elsewhere):
        refused = pond.client(token)
        with pytest.raises(Forbidden):
            refused.ingest("t", rows(10, 20), format="ndjson")
        with pytest.raises(Forbidden):
            list(refused.rejects(outcome.rejects))


def test_bad_requests_are_refused_before_their_body(pond: KeeperProcess) -> None:
    """No key, no type, no such option: the answer comes though the body never does."""
    for query, headers, status in (
        ("", {"Content-Type": "text/html"}, 415),
        ("modus=x", {"Content-Type": "text/csv"}, 400),
        ("", {"Content-Type": "text/csv", "Authorization": "Bearer pk_none"}, 401),
        ("", {"Content-Type": "text/csv", "Content-Encoding": "gzip"}, 415),
        ("", {"Content-Type": "text/csv", "Idempotency-Key": "é"}, 400),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", pond.port, timeout=30)
        try:
            connection.putrequest("POST", f"/v1/tables/t/rows?{query}")
            for name, value in ({"Authorization": f"Bearer {pond.key}", "Content-Length": "1000000"} | headers).items():
                connection.putheader(name, value.encode())
            connection.endheaders()
            assert connection.getresponse().status == status, headers
        finally:
            connection.close()


# Deaths and leftovers


@pytest.mark.fault
def test_a_stager_that_is_killed(pond: KeeperProcess, client: Client) -> None:
    """Its own ingest is told; nothing was applied, and the next ingest has another stager."""
    client.ingest("t", ONE, format="ndjson")
    # Long at work: two passes over a body with a drift, so that it is not done before a busy test comes to kill it.
    body = b"".join(b'{"n": %d, "m": "x"}\n' % n for n in range(2_000_000))
    sent = Asked(lambda: send(pond, body, "evolve=true"))
    pid = wait_until(lambda: [pid for pid in pond.children("stager") if _reads(pid, len(body))], what="a stager at work")[0]
    os.kill(pid, signal.SIGKILL)

    answer = sent.outcome(60)

    assert (answer.status_code, code_of(answer)) == (502, WorkerDied.code), answer.text
    outcome = client.ingest("t", rows(10, 20), format="ndjson")
    assert count(client, outcome.version) == 11


def _reads(pid: int, size_bytes: int) -> bool:
    """Whether the process has a body of this size open; one of an earlier test may not be dead yet."""
    try:
        return any(
            "/staging/" in str(fd.readlink()) and fd.stat().st_size == size_bytes for fd in Path(f"/proc/{pid}/fd").iterdir()
        )
    except OSError:
        return False


@pytest.mark.fault
def test_a_client_that_goes_away_while_it_sends(pond: KeeperProcess, client: Client) -> None:
    """Half a body is no ingest."""
    for chunked in (False, True):
        connection = http.client.HTTPConnection("127.0.0.1", pond.port, timeout=30)
        connection.putrequest("POST", "/v1/tables/t/rows")
        length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": "4000000"}
        headers = {"Authorization": f"Bearer {pond.key}", "Content-Type": "application/x-ndjson"} | length
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        half = rows(0, 150_000)
        connection.send(b"%x\r\n%b\r\n" % (len(half), half) if chunked else half)
        wait_until(lambda: spool_of(pond), what="a part of the body")
        connection.close()
        wait_until(lambda: not spool_of(pond), what="an empty spool")
    assert count(client, client.execute("INSERT INTO t VALUES (-1)").version) == 1


@pytest.mark.fault
def test_a_keeper_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    """What it had received and staged goes at the next start; rejects do not."""
    with KeeperProcess(tmp_path / "pond.duckdb", "--readers", "2") as keeper:
        client = keeper.client()
        client.execute("CREATE TABLE t (n BIGINT)")
        outcome = client.ingest("t", b'{"n": 1}\n{"n": "x"}\n', format="ndjson", on_error="reject")
        with Program(keeper.target).there():
            waiting = Asked(lambda: send(keeper, rows(0, 1000)))
            wait_until(lambda: client.queue()["writes"], what="an ingest in the queue")
            assert spool_of(keeper), "the positive control: there is something to leave behind"
            keeper.kill9()
        assert isinstance(waiting.outcome(), httpx.HTTPError)
        keeper.restart()

        assert spool_of(keeper) == []
        client = keeper.client()
        assert outcome.rejects is not None
        assert len(list(client.rejects(outcome.rejects))) == 1
        assert count(client, client.execute("INSERT INTO t VALUES (-1)").version) == 2


# Bounds


def test_bounds_of_a_body(tmp_path: Path) -> None:
    """Its own limit of bytes, announced or not; slow is allowed as long as something comes."""
    settings = {
        "PONDKEEPER_INGEST_MAX_BODY_BYTES": "1MB",
        "PONDKEEPER_SERVER_MAX_BODY_BYTES": "10KB",
        "PONDKEEPER_SERVER_BODY_TIMEOUT_S": "1.5",
    }
    with KeeperProcess(tmp_path / "pond.duckdb", "--readers", "2", environment=settings) as keeper:
        client = keeper.client(retries=0)
        client.execute("CREATE TABLE t (n BIGINT)")
        big = rows(0, 120_000)
        assert len(big) > 1_000_000
        for body in (big, iter([big[:500_000], big[500_000:]])):
            answer = send(keeper, body)
            assert (answer.status_code, code_of(answer)) == (413, BodyTooLarge.code)
        assert send(keeper, rows(0, 50_000)).json()["rows"] == 50_000

        def slowly(pieces: int, pause_s: float) -> Iterator[bytes]:
            for n in range(pieces):
                time.sleep(pause_s if n else 0)
                yield b'{"n": %d}\n' % n

        assert send(keeper, slowly(6, 0.4)).json()["rows"] == 6
        try:
            late = code_of(send(keeper, slowly(2, 3.5)))
        except httpx.HTTPError:  # the connection was closed while we were sending
            late = RequestTooSlow.code
        assert late == RequestTooSlow.code
        wait_until(lambda: not spool_of(keeper), what="an empty spool")


@pytest.mark.fault
@pytest.mark.privileged
def test_a_full_disk_under_the_spool(tmp_path: Path) -> None:
    """507, announced or not, with the keeper up and no file left; with room again it goes on."""
    place = tmp_path / "disk"
    place.mkdir()
    under = with_a_small_disk(place, 200 * MIB)
    with KeeperProcess(tmp_path / "pond.duckdb", home=place / "home", under=under) as keeper:
        client, disk = keeper.client(retries=0), SmallDisk(keeper, place)
        version = client.execute("CREATE TABLE t (n BIGINT, s VARCHAR)").version
        client.query("SELECT 1", at_least=version)
        disk.fill(leave_bytes=40 * MIB)
        assert disk.free_bytes < 48 * MIB, "the positive control: it is the small disk, and nearly full"
        body = b"".join(b'{"n": %d, "s": "%064x"}\n' % (n, n * 7919) for n in range(600_000))
        assert len(body) > 48 * MIB
        for sent in (body, iter([body[:20_000_000], body[20_000_000:]])):
            answer = send(keeper, sent)
            assert (answer.status_code, code_of(answer)) == (507, DiskFull.code), answer.text
            assert keeper.is_ready()
        disk.free()
        assert client.ingest("t", b'{"n": 1}\n', format="ndjson").rows == 1


def test_an_ingest_is_counted(pond: KeeperProcess, client: Client) -> None:
    """In the metrics, by outcome, rows and the time with and without the file."""
    client.ingest("t", rows(0, 7), format="ndjson")
    with pond.http() as bare:
        text = bare.get("/metrics").text
    assert 'pondkeeper_ingests_total{outcome="committed"}' in text
    assert 'pondkeeper_ingest_seconds_total{phase="staging"}' in text
    assert "pondkeeper_ingest_rows_total" in text


def test_the_answer_is_the_documented_one(pond: KeeperProcess, client: Client) -> None:
    """Every field that the OpenAPI document requires is in the answer."""
    with pond.http() as bare:
        document = bare.get("/openapi.json").json()
    shape = document["components"]["schemas"]["IngestAnswer"]
    said = json.loads(send(pond, ONE).content)
    assert set(shape["required"]) <= set(said) <= set(shape["properties"])
    assert "/v1/databases/{name}/tables/{table}/rows" in document["paths"]

"""The client against a server that does what a healthy keeper never does."""

# ruff: noqa: SIM117  a server, then what is asked of it: nested blocks read better than one line of three

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.client import Client
from pondkeeper.errors import (
    AnswerIncomplete,
    DatabaseBusy,
    KeeperNotAnswering,
    KeeperNotRunning,
    OutcomeUnknown,
    PondkeeperError,
    QueueFull,
    RequestRefused,
    SqlInvalid,
    Unauthenticated,
    all_errors,
)
from pondkeeper.files.paths import Home
from tests.support.fake_keeper import Reply, Request, answer, fake_keeper, problem, rows
from tests.support.keeper import free_port, program_environment

Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients that are closed in the end: of a URL, or of a home."""
    with contextlib.ExitStack() as stack:

        def make(url: str = "", *arguments: Any, home: Path | None = None, **options: Any) -> Client:
            client = Client.local(home, **options) if home else Client(url, *arguments, **options)
            return stack.enter_context(client)

        yield make


def test_a_query_becomes_columns_and_rows(connect: Connect) -> None:
    """An answer has names, types, rows and what it was answered from."""
    with fake_keeper(lambda _: rows({"a": "INTEGER", "b": "VARCHAR"}, [1, "x"], [2, None])) as keeper:
        found = connect(keeper.url, "pk_1_secret").query("SELECT ?", [5], timeout_s=3, at_least=4)
    sent = keeper.requests[0]

    assert found.names == ["a", "b"]
    assert list(found) == [[1, "x"], [2, None]]
    assert [*found.dicts()] == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert (found.version, found.truncated, found.limit, len(found)) == (7, False, None, 2)
    assert sent.path == "/v1/query"
    assert sent.body == {"sql": "SELECT ?", "parameters": [5], "limits": {"timeout_s": 3}, "at_least": 4}
    assert sent.headers["Authorization"] == "Bearer pk_1_secret"


def test_a_database_is_named_in_the_path_and_cannot_leave_it(connect: Connect) -> None:
    """A name is one segment of the path, whatever is in it."""
    with fake_keeper(lambda _: rows({"a": "INTEGER"}, [1])) as keeper:
        client = connect(keeper.url, database="../keys?x=/")
        assert client.query("SELECT 1").scalar() == 1

    assert keeper.requests[0].path == "/v1/databases/..%2Fkeys%3Fx%3D%2F/query"


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.code)
def test_an_error_comes_back_as_its_own_class(kind: type[PondkeeperError], connect: Connect) -> None:
    """Every error of the tree is raised as the class of its code, with message, remedy and details."""
    with fake_keeper(lambda _: problem(kind.code, kind.http_status, "This happened.", depth=3)) as keeper:
        with pytest.raises(kind) as raised:
            connect(keeper.url).query("SELECT 1")

    assert type(raised.value) is kind
    assert (raised.value.message, raised.value.remedy) == ("This happened.", "Mend it.")
    assert raised.value.details == {"depth": 3}


def test_a_busy_keeper_is_asked_again(connect: Connect) -> None:
    """A 503 with Retry-After says that nothing was done: the client repeats, also a write."""
    replies = iter(
        [problem("queue_full", 503, retry_after="0.1")] * 2
        + [answer({"outcome": "committed", "version": 3, "rows_changed": 1})]
    )
    with fake_keeper(lambda _: next(replies)) as keeper:
        began = time.monotonic()
        outcome = connect(keeper.url).execute("INSERT INTO t VALUES (1)")

    assert (outcome.version, len(keeper.requests)) == (3, 3)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    "reply",
    [
        problem("queue_full", 503, retry_after="60"),
        problem("queue_full", 503),
        problem("queue_full", 503, retry_after="soon"),
    ],
)
def test_retries_end_within_their_bound(reply: Reply, connect: Connect) -> None:
    """A wait beyond the bound, or one that is not said, is not waited for."""
    with fake_keeper(lambda _: reply) as keeper, pytest.raises(QueueFull):
        connect(keeper.url, retry_for_s=5).query("SELECT 1")

    assert len(keeper.requests) == 1


def test_nothing_but_a_503_is_repeated(connect: Connect) -> None:
    """An error that another try cannot mend is raised at once."""
    with fake_keeper(lambda _: problem("sql_invalid", 400, retry_after="0")) as keeper, pytest.raises(SqlInvalid):
        connect(keeper.url).query("SELEC 1")

    assert len(keeper.requests) == 1


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_an_answer_that_breaks_off_is_an_error(form: str, chunked: bool, connect: Connect) -> None:
    """Half an answer never passes for a whole one, in no format and no framing."""
    reply = Reply(body=b"x" * 1000, chunked=chunked, stop_after=500)
    with fake_keeper(lambda _: reply) as keeper, connect(keeper.url).stream("SELECT 1", format=form) as stream:
        with pytest.raises(AnswerIncomplete):
            stream.read()


def test_json_that_is_no_json_is_an_incomplete_answer(connect: Connect) -> None:
    """A body that ends too early inside its framing is noticed as well."""
    with fake_keeper(lambda _: Reply(body=b'{"columns": [')) as keeper, pytest.raises(AnswerIncomplete):
        connect(keeper.url).query("SELECT 1")


def test_a_write_whose_answer_is_lost_has_an_unknown_outcome(connect: Connect) -> None:
    """A lost connection does not say whether the write was committed, so neither do we; how it is repeated: test_retries."""
    with fake_keeper(lambda _: Reply(body=b"{}" * 100, stop_after=1)) as keeper, pytest.raises(OutcomeUnknown):
        connect(keeper.url, retries=0).execute("INSERT INTO t VALUES (1)")

    assert len(keeper.requests) == 1


def test_no_keeper_at_all(connect: Connect) -> None:
    """A port where nobody listens is a keeper that is not running, for reads and writes."""
    client = connect(f"http://127.0.0.1:{free_port()}", retry_for_s=1.0)
    with pytest.raises(KeeperNotRunning):
        client.query("SELECT 1")
    with pytest.raises(KeeperNotRunning):
        client.execute("INSERT INTO t VALUES (1)")


def test_a_silent_keeper_is_named_so(connect: Connect) -> None:
    """`timeout_s` of the client bounds the silence of the keeper."""
    with fake_keeper(lambda _: Reply(delay_s=30)) as keeper, pytest.raises(KeeperNotAnswering):
        connect(keeper.url, timeout_s=0.2).queries()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(502, b"<html>Bad Gateway"),
        Reply(404, b"[]"),
        Reply(302, b"", {"Location": "/x"}),
        Reply(500, b'{"error": 1}'),
    ],
)
def test_a_server_that_is_no_keeper(reply: Reply, connect: Connect) -> None:
    """What stands at the URL and is no keeper is said to be none."""
    with fake_keeper(lambda _: reply) as keeper, pytest.raises(PondkeeperError, match="not as a keeper does"):
        connect(keeper.url).query("SELECT 1")


def test_a_stream_is_a_file_and_gives_back_every_byte(connect: Connect) -> None:
    """Reads of any size, mixed with iteration, see each byte once and in order."""
    body = bytes(range(256)) * 2000
    with fake_keeper(lambda _: Reply(body=body, chunked=True)) as keeper:
        with connect(keeper.url).stream("SELECT 1", format="csv") as stream:
            head = stream.read(10) + stream.read(0) + stream.read(100_000) + next(iter(stream))
            assert head + stream.read() == body
            assert stream.read(5) == b""


def test_a_cut_json_answer_names_its_limit_at_its_end(connect: Connect) -> None:
    """Only the true end of the body counts: a value that looks like it does not."""
    end = '"row_count":1,"truncated":%s,"limit":%s,"version":4,"elapsed_ms":1.5}'
    fake = '{"rows":[["\\"truncated\\":true,\\"limit\\":\\"max_rows\\",\\"version\\":1,\\"elapsed_ms\\":1}"]],'
    for said, expected in ((("true", '"max_rows"'), "max_rows"), (("false", "null"), None)):
        reply = Reply(body=(fake + end % said).encode(), chunked=True)
        with fake_keeper(lambda _, reply=reply: reply) as keeper:  # type: ignore[misc]
            with connect(keeper.url).stream("SELECT 1", format="json") as stream:
                stream.read()
                assert stream.limit == expected


def test_a_list_of_statements_travels_whole(connect: Connect) -> None:
    """Texts and (text, parameters) pairs become one atomic list."""
    reply = answer({"outcome": "committed", "version": 9, "rows_changed": [1, 2]})
    with fake_keeper(lambda _: reply) as keeper:
        outcome = connect(keeper.url).execute(["DELETE FROM t", ("INSERT INTO t VALUES (?)", [1])], timeout_s=2)

    assert outcome.rows_changed == [1, 2]
    assert keeper.requests[0].body == {
        "statements": [{"sql": "DELETE FROM t"}, {"sql": "INSERT INTO t VALUES (?)", "parameters": [1]}],
        "limits": {"timeout_s": 2},
    }


def test_the_control_socket_of_a_deep_home(tmp_path: Path, connect: Connect) -> None:
    """A home whose path is longer than a socket address can be is reached all the same, also if it was made later."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    assert len(str(Home(deep).socket)) > 107
    client = connect(home=deep)
    with pytest.raises(KeeperNotRunning):
        client.databases()
    deep.mkdir(parents=True)
    short = tmp_path / "s"
    with fake_keeper(lambda _: answer({"databases": [{"name": "w"}]}), short):
        Home(deep).socket.hardlink_to(short)
        assert client.databases() == [{"name": "w"}]


def test_a_missing_control_socket_is_a_keeper_that_is_not_running(tmp_path: Path, connect: Connect) -> None:
    """No socket, no keeper; the path is for people at this machine, not in the message."""
    with pytest.raises(KeeperNotRunning) as raised:
        connect(home=tmp_path).databases()

    assert str(tmp_path) not in raised.value.message


def test_a_key_does_not_follow_a_redirect(connect: Connect) -> None:
    """Whoever answers with a redirect does not learn the key, nor does the place it points to."""
    with fake_keeper(lambda _: rows({"a": "INTEGER"}, [1])) as other:
        with fake_keeper(lambda _: Reply(307, b"", {"Location": other.url + "/v1/query"})) as keeper:
            with pytest.raises(PondkeeperError):
                connect(keeper.url, "pk_1_secret").query("SELECT 1")

    assert other.requests == []


def test_other_nouns_have_their_routes(connect: Connect) -> None:
    """Each method asks what its name says."""
    asked: list[tuple[str, str]] = []

    def respond(request: Request) -> Reply:
        asked.append((request.method, request.path))
        found = {"queries": [], "keys": [], "snapshots": [], "databases": [{"name": "w"}], "version": 3, "token": "pk"}
        return answer(found)

    with fake_keeper(respond) as keeper:
        client = connect(keeper.url)
        client.queries(), client.cancel("q/1"), client.keys(), client.revoke_key("k1"), client.snapshots("w")
        client.take_snapshot(), client.status("w"), client.status(), client.create_key("ci", "reader", expires_at=5.0)

    assert asked == [
        ("GET", "/v1/queries"),
        ("DELETE", "/v1/queries/q%2F1"),
        ("GET", "/v1/keys"),
        ("DELETE", "/v1/keys/k1"),
        ("GET", "/v1/databases/w/snapshots"),
        ("POST", "/v1/snapshots"),
        ("GET", "/v1/databases/w"),
        ("GET", "/v1/databases"),
        ("GET", "/v1/databases/w"),
        ("POST", "/v1/keys"),
    ]
    assert keeper.requests[-1].body == {"name": "ci", "role": "reader", "expires_at": 5.0}


def test_importing_the_client_loads_no_engine() -> None:
    """The client is for small machines too: pyarrow comes with `arrow()` and not before."""
    code = "import sys, pondkeeper.client; print([m for m in ('duckdb', 'pyarrow', 'fastapi', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=program_environment()
    )

    assert done.stdout.strip() == "[]"


def test_an_arrow_answer_becomes_a_table(connect: Connect) -> None:
    """The stream is read as it comes, whatever the pieces."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": list(range(10_000)), "b": [f"text {n}" for n in range(10_000)]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    reply = Reply(body=sink.getvalue().to_pybytes(), chunked=True)
    with fake_keeper(lambda _: reply) as keeper:
        assert connect(keeper.url).arrow("FROM t").equals(table)


def test_a_database_that_is_busy_says_who_has_it(connect: Connect) -> None:
    """Details of an error are at hand as values."""
    reply = problem("database_busy", 503, holder_pid=12, holder_program="python")
    with fake_keeper(lambda _: reply) as keeper, pytest.raises(DatabaseBusy) as raised:
        connect(keeper.url).execute("DELETE FROM t")

    assert raised.value.details == {"holder_pid": 12, "holder_program": "python"}


@pytest.mark.parametrize("url", ["db:8420", "", "ftp://x", "http://", "/v1"])
def test_a_url_that_can_be_none(url: str) -> None:
    """It is refused where it is given, and not taken for a keeper that does not run."""
    with pytest.raises(RequestRefused, match="URL"):
        Client(url)


@pytest.mark.parametrize("key", ["pk_1_ä", "pk_1_x\n", "pk_1\r\nX-Evil: 1"])
def test_a_key_that_can_be_none(key: str) -> None:
    """Nothing but printable ASCII goes into a header."""
    with pytest.raises(Unauthenticated):
        Client("http://127.0.0.1:1", key)

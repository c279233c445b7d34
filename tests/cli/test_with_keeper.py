"""The commands with a real keeper: what a user types first, and what must go on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.errors import KeeperNotRunning
from pondkeeper.files.paths import DatabasePaths
from tests.support.keeper import KeeperProcess, command_line, free_port, pondkeeper, program_environment, wait_until

ROWS = 500_000


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """One keeper for the tests here, with a table `t` of half a million rows."""
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--max-rows", "400000") as running:
        done = running.cli("execute", f"CREATE TABLE t AS SELECT range AS i, 'text ' || range AS s FROM range({ROWS})")
        assert done.returncode == 0, done.stderr
        assert running.cli("query", "SELECT 1", "--at-least", done.stdout.strip()).returncode == 0
        yield running


def paths_of(keeper: KeeperProcess) -> DatabasePaths:
    return keeper.home.database(keeper.target)


def said(keeper: KeeperProcess, *arguments: str) -> Any:
    done = keeper.cli(*arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_what_a_user_types_first(keeper: KeeperProcess) -> None:
    """Write, read one's own write, look at the status: each output is ready for the next command."""
    made = keeper.cli("execute", "CREATE TABLE notes (id INTEGER, text VARCHAR)", "INSERT INTO notes VALUES (1, 'a')")
    version = keeper.cli("execute", "INSERT INTO notes VALUES (?, ?)", "-p", "2", "-p", 'b, "c"').stdout.strip()
    read = keeper.cli("query", "FROM notes ORDER BY id", "--at-least", version)

    assert (made.returncode, int(version) > 0) == (0, True)
    assert read.stdout == 'id,text\n1,a\n2,"b, ""c"""\n'
    assert said(keeper, "status")["keeper"]["pid"] == keeper.pid
    assert said(keeper, "status")["databases"][0]["version"] >= int(version)


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_every_format_arrives_whole(keeper: KeeperProcess, form: str, tmp_path: Path) -> None:
    """A file of each format holds every row."""
    pytest.importorskip("duckdb")
    import duckdb
    from pyarrow import ipc

    target = tmp_path / f"t.{form}"
    done = keeper.cli("query", "SELECT i, s FROM t WHERE i < 100000", "-o", str(target))
    assert done.returncode == 0, done.stderr
    if form == "arrow":
        with ipc.open_stream(target) as reader:
            count = reader.read_all().num_rows
    elif form == "json":
        count = len(json.loads(target.read_text())["rows"])
    else:
        count = duckdb.sql(f"SELECT count(*), sum(i) FROM '{target}'").fetchall()[0][0]

    assert count == 100_000


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_an_answer_cut_by_the_server_is_a_failure_in_every_format(
    keeper: KeeperProcess, form: str, tmp_path: Path
) -> None:
    """Half a million rows, 400,000 allowed: never exit code 0; where one asked for fewer, never a failure."""
    target = tmp_path / f"t.{form}"
    cut = keeper.cli("query", "FROM t", "-o", str(target))
    asked = keeper.cli("query", "FROM t", "-o", str(target), "--max-rows", "300000")

    assert cut.returncode == (7 if form in ("csv", "ndjson") else 4), cut.stderr
    assert asked.returncode == 0, asked.stderr
    assert target.exists()


def test_the_only_key_that_is_needed_here_is_the_socket(keeper: KeeperProcess) -> None:
    """Over HTTP a key is needed, also on localhost; one made here works there, until it is revoked."""
    environment = {"PONDKEEPER_URL": keeper.url}
    refused = pondkeeper("query", "SELECT 1", **environment)
    token = keeper.cli("key", "create", "reader of all").stdout.strip()
    read = pondkeeper("query", "SELECT 1 AS one", **environment, PONDKEEPER_KEY=token)
    write = pondkeeper("execute", "DELETE FROM t", **environment, PONDKEEPER_KEY=token)
    listed = pondkeeper("key", "list", "--json", **environment, PONDKEEPER_KEY=keeper.key)
    keeper.cli("key", "revoke", token)
    ended = pondkeeper("query", "SELECT 1", **environment, PONDKEEPER_KEY=token)

    assert (refused.returncode, read.stdout) == (3, "one\n1\n")
    assert (write.returncode, ended.returncode) == (3, 3)
    assert "reader of all" in {key["name"] for key in json.loads(listed.stdout)}
    assert token.split("_")[2] not in listed.stdout


def test_a_remote_administrator_has_the_same_commands(keeper: KeeperProcess) -> None:
    """Keys, snapshots and status over the URL."""
    environment = {"PONDKEEPER_URL": keeper.url, "PONDKEEPER_KEY": keeper.key}
    made = pondkeeper(
        "key", "create", "far", "--role", "writer", "-d", "pond", "--expires", "1h", "--json", **environment
    )
    taken = pondkeeper("snapshot", "take", **environment)
    listed = pondkeeper("snapshot", "list", "--json", **environment)
    revoked = pondkeeper("key", "revoke", "far", **environment)

    assert json.loads(made.stdout)["key"]["databases"] == ["pond"]
    assert int(taken.stdout) == json.loads(listed.stdout)[0]["version"]
    assert revoked.returncode == 0
    assert "keeper running" in pondkeeper("status", **environment).stdout
    assert pondkeeper("snapshot", "path", **environment).returncode == 10


def test_a_running_query_is_listed_and_killed(keeper: KeeperProcess) -> None:
    """`queries` shows it, `cancel` ends it, and its client is told by the exit code."""
    runaway = subprocess.Popen(
        command_line(
            "query", "SELECT count(*) FROM t a, t b, t c WHERE a.i + b.i + c.i = 7", "--home", str(keeper.home.root)
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_environment(),
    )
    (query,) = wait_until(lambda: said(keeper, "queries"), what="the query in the list")
    killed = keeper.cli("cancel", query["id"])
    _, narrated = runaway.communicate(timeout=60)

    assert killed.returncode == 0
    assert runaway.returncode == 5, narrated
    wait_until(lambda: said(keeper, "queries") == [], what="the end of the query")
    assert keeper.cli("cancel", query["id"]).returncode == 2


def test_an_interrupted_query_is_killed_in_the_keeper(keeper: KeeperProcess) -> None:
    """Ctrl-C of the client gives the CPU back: nothing runs on for nobody."""
    runaway = subprocess.Popen(
        command_line(
            "query", "SELECT count(*) FROM t a, t b, t c WHERE a.i + b.i + c.i = 7", "--home", str(keeper.home.root)
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=program_environment(),
    )
    wait_until(lambda: said(keeper, "queries"), what="the query in the list")
    runaway.send_signal(signal.SIGINT)

    assert runaway.wait(60) == 130
    wait_until(lambda: said(keeper, "queries") == [], what="the end of the query")


def test_a_program_writes_in_its_turn_and_its_work_is_published(keeper: KeeperProcess) -> None:
    """`run` beside a keeper: readers go on, the lease is shown, the version printed in the end has the rows."""
    code = (
        "import duckdb, os, sys; c = duckdb.connect(os.environ['PONDKEEPER_DATABASE']);"
        "c.execute('CREATE OR REPLACE TABLE loaded AS SELECT 42 AS a'); print('there', flush=True); sys.stdin.read()"
    )
    running = subprocess.Popen(
        command_line("run", "--home", str(keeper.home.root), "--reason", "load", "--", sys.executable, "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_environment(),
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "there\n"
    seen = wait_until(lambda: said(keeper, "status")["databases"][0]["lease"]["holder"], what="the lease in the status")
    beside = keeper.cli("query", "SELECT count(*) FROM t")
    _, narrated = running.communicate(timeout=60)
    version = narrated.split("published as version ")[1].split()[0]

    assert (seen["who"].split()[0], seen["why"]) == (Path(sys.executable).name, "load")
    assert beside.stdout.splitlines()[1] == str(ROWS)
    assert running.returncode == 0
    assert keeper.cli("query", "SELECT a FROM loaded", "--at-least", version).stdout == "a\n42\n"


def test_the_path_of_a_snapshot_is_for_any_duckdb(keeper: KeeperProcess) -> None:
    """The path leads to a file that DuckDB opens read-only, again and again, and the keeper goes on writing."""
    duckdb = pytest.importorskip("duckdb")
    path = keeper.cli("snapshot", "path").stdout.strip()
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
        assert keeper.cli("execute", "CREATE OR REPLACE TABLE beside AS SELECT 1 AS a").returncode == 0
        held = [
            each["version"]
            for each in said(keeper, "snapshot", "list")
            if os.getpid() in {by["pid"] for by in each["open_by"]}
        ]
        assert len(held) == 1


def test_check_finds_a_running_keeper_well(keeper: KeeperProcess) -> None:
    """Nothing of a healthy keeper is a problem, its own children are known to it."""
    findings = said(keeper, "check")

    assert [each for each in findings if each["level"] == "problem"] == []
    assert not any("not asked" in each["what"] for each in findings)
    assert any("and answers" in each["what"] for each in findings)


def test_a_second_keeper_is_refused_by_name(keeper: KeeperProcess) -> None:
    """The exit code is that of a running keeper, and the first one is named."""
    done = pondkeeper("serve", str(keeper.target), "--port", str(free_port()))

    assert done.returncode == 9
    assert str(keeper.pid) in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--readers", "many"], 2, "readers.count"),
        (["--port", "70000"], 2, "server.port"),
        (["--log-format", "xml"], 2, "log.format"),
        (["--config", "/no/such.toml"], 2, "such.toml"),
    ],
)
def test_serve_refuses_settings_that_cannot_be(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    """A wrong flag is an error that names the setting, before anything is made."""
    done = pondkeeper("serve", str(tmp_path / "x.duckdb"), *arguments)

    assert done.returncode == code
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_of_a_keeper_that_is_stopped_and_of_one_that_is_gone(tmp_path: Path) -> None:
    """SIGSTOP, then `kill -9`: status answers each time, within seconds, and says which it is."""
    with KeeperProcess(tmp_path / "x.duckdb") as keeper:
        os.kill(keeper.pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            stopped = said(keeper, "status")
        finally:
            os.kill(keeper.pid, signal.SIGCONT)
        assert stopped["keeper"]["state"] == "not answering"
        assert stopped["databases"][0]["version"] == 1
        assert time.monotonic() - began < 30
        keeper.kill9()
        gone = said(keeper, "status")
        assert gone["keeper"]["state"] == "not running"
        assert gone["databases"][0]["version"] == 1
        with pytest.raises(KeeperNotRunning):
            keeper.local_client().databases()

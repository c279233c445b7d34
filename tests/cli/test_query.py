"""`query` and `execute` against a server that answers as it is told."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.fake_keeper import Reply, Request, answer, fake_keeper, problem, rows
from tests.support.keeper import command_line, pondkeeper, program_environment

COLUMNS = {"name": "VARCHAR", "count": "BIGINT"}
TWO_ROWS = rows(COLUMNS, ["München\x1b[31m", 12], [None, 3])


def on_a_terminal(*arguments: str, width: int = 80) -> tuple[int, str]:
    """Run a command with stdout on a terminal, stderr elsewhere; its exit code and what the terminal got."""
    main, side = pty.openpty()
    environment = program_environment(COLUMNS=str(width), TERM="xterm")
    process = subprocess.Popen(
        command_line(*arguments), stdout=side, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment
    )
    os.close(side)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    return process.wait(), shown.decode()


def test_a_table_on_a_terminal() -> None:
    """Names, values, NULL; control characters of the data do not reach the terminal; a table asks for few rows."""
    with fake_keeper(lambda _: TWO_ROWS) as keeper:
        code, shown = on_a_terminal("query", "FROM t", "--url", keeper.url)

    assert code == 0
    assert "name" in shown
    assert "NULL" in shown
    assert "München\\x1b[31m" in shown
    assert "\x1b[31m" not in shown
    assert keeper.requests[0].body["limits"] == {"max_rows": 100}


def test_a_wide_table_is_cut_to_the_terminal() -> None:
    """Long values end in an ellipsis instead of wrapping the lines of a table."""
    with fake_keeper(lambda _: rows({"a": "VARCHAR", "b": "VARCHAR"}, ["x" * 500, "y" * 500])) as keeper:
        _, shown = on_a_terminal("query", "FROM t", "--url", keeper.url, width=60)

    assert all(len(re.sub(r"\x1b\[\d*m", "", line)) <= 60 for line in shown.splitlines())
    assert "…" in shown


def test_a_pipe_gets_csv_and_the_bytes_as_they_came() -> None:
    """stdout is data: not a byte is added, and nothing of it is on stderr."""
    body = b'name,count\r\n"a, b",1\r\n' * 10_000
    with fake_keeper(lambda _: Reply(body=body, chunked=True, headers={"Content-Type": "text/csv"})) as keeper:
        done = subprocess.run(
            command_line("query", "FROM t", "--url", keeper.url),
            capture_output=True,
            check=False,
            env=program_environment(),
        )

    assert (done.returncode, done.stdout, done.stderr) == (0, body, b"")
    assert keeper.requests[0].headers["Accept"] == "text/csv"


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_binary_is_refused_on_a_terminal(form: str, tmp_path: Path) -> None:
    """A terminal is not for bytes; a file is."""
    with fake_keeper(lambda _: Reply(body=b"\x00\x01")) as keeper:
        code, _ = on_a_terminal("query", "FROM t", "--url", keeper.url, "--format", form)
        assert (code, keeper.requests) == (2, [])
        code, _ = on_a_terminal("query", "FROM t", "--url", keeper.url, "--format", form, "-o", str(tmp_path / "f"))
        assert (code, (tmp_path / "f").read_bytes()) == (0, b"\x00\x01")


def test_the_ending_of_the_file_chooses_the_format(tmp_path: Path) -> None:
    """`-o flights.parquet` is Parquet, unless --format says otherwise."""
    with fake_keeper(lambda _: Reply(body=b"PAR1")) as keeper:
        pondkeeper("query", "FROM t", "--url", keeper.url, "-o", str(tmp_path / "t.parquet"))
        pondkeeper("query", "FROM t", "--url", keeper.url, "-o", str(tmp_path / "t.parquet"), "-f", "arrow")

    accepted = [request.headers["Accept"] for request in keeper.requests]
    assert accepted == ["application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    """An answer that breaks off leaves the old file as it was, and no other."""
    target = tmp_path / "t.csv"
    target.write_text("old")
    with fake_keeper(lambda _: Reply(body=b"x" * 1000, stop_after=100)) as keeper:
        done = pondkeeper("query", "FROM t", "--url", keeper.url, "-o", str(target))

    assert done.returncode == 7
    assert "answer_incomplete" in done.stderr
    assert (target.read_text(), [path.name for path in tmp_path.iterdir()]) == ("old", ["t.csv"])


def test_a_device_is_written_to_and_not_replaced() -> None:
    """`-o /dev/stdout` works, and leaves the device what it is."""
    with fake_keeper(lambda _: Reply(body=b"a\r\n")) as keeper:
        done = pondkeeper("query", "FROM t", "--url", keeper.url, "-f", "csv", "-o", "/dev/null")

    assert done.returncode == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("asked", "code"), [((), 4), (("--max-rows", "1"), 0)])
def test_an_answer_that_was_cut_is_no_success(asked: tuple[str, ...], code: int) -> None:
    """Being cut by the server's limit is exit code 4; by a limit of one's own it is what was asked for."""
    cut = {
        "columns": [],
        "rows": [],
        "row_count": 1,
        "truncated": True,
        "limit": "max_rows",
        "version": 1,
        "elapsed_ms": 1,
    }
    with fake_keeper(lambda _: answer(cut)) as keeper:
        done = pondkeeper("query", "FROM t", "--url", keeper.url, "-f", "json", *asked)

    assert done.returncode == code
    assert json.loads(done.stdout) == cut
    assert "max_rows" in done.stderr


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    """`pondkeeper query … | head -1` writes no traceback, and ends as programs killed by SIGPIPE do."""
    with fake_keeper(lambda _: Reply(body=b"line\r\n" * 1_000_000, chunked=True)) as keeper:
        process = subprocess.Popen(
            command_line("query", "FROM t", "--url", keeper.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=program_environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\r\n"
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()

    assert (process.wait(), said) == (141, b"")


def test_sql_and_parameters_as_typed() -> None:
    """SQL from stdin; values are JSON where they read as such, and names may carry their $."""
    with fake_keeper(lambda _: Reply(body=b"")) as keeper:
        values = ["5", "-1.5", "true", "null", "007", '"5"', "[1, 2]", "O'Neil", "NaN", ""]
        positional = [word for value in values for word in ("-p", value)]
        pondkeeper("query", "-", "--url", keeper.url, *positional, stdin="SELECT 'ü'\n")
        pondkeeper("query", "SELECT $a", "--url", keeper.url, "-n", "$a=1=2", "-n", "b=")

    assert keeper.requests[0].body["sql"] == "SELECT 'ü'\n"
    assert keeper.requests[0].body["parameters"] == [5, -1.5, True, None, "007", "5", [1, 2], "O'Neil", "NaN", ""]
    assert keeper.requests[1].body["parameters"] == {"a": "1=2", "b": ""}


@pytest.mark.parametrize(
    "arguments", [("-p", "1", "-n", "a=1"), ("-n", "a"), ("-n", "=1"), ("--timeout", "soon"), ("-o", "/no/such/t.csv")]
)
def test_a_wrong_command_line_reaches_no_server(arguments: tuple[str, ...]) -> None:
    """It is refused here, with exit code 2."""
    with fake_keeper(lambda _: Reply(body=b"")) as keeper:
        done = pondkeeper("query", "SELECT 1", "--url", keeper.url, *arguments)

    assert (done.returncode, done.stdout) == (2, "")


def test_sql_that_is_not_utf8_is_said_to_be(tmp_path: Path) -> None:
    """A file in another encoding is refused before anything is sent."""
    file = tmp_path / "latin1.sql"
    file.write_bytes("DELETE FROM caf\u00e9".encode("latin-1"))
    done = pondkeeper("execute", "--file", str(file), "--url", "http://127.0.0.1:1")

    assert done.returncode == 2
    assert "is not UTF-8" in done.stderr


def test_limits_travel_as_typed() -> None:
    """Durations and sizes become seconds and bytes."""
    limits = ["--timeout", "250ms", "--max-bytes", "2KiB", "--memory", "1GB", "--at-least", "7", "--max-rows", "3"]
    with fake_keeper(lambda _: Reply(body=b"")) as keeper:
        pondkeeper("query", "SELECT 1", "-d", "w", "--url", keeper.url, *limits)

    assert keeper.requests[0].path == "/v1/databases/w/query"
    assert keeper.requests[0].body == {
        "sql": "SELECT 1",
        "at_least": 7,
        "limits": {"timeout_s": 0.25, "max_rows": 3, "max_bytes": 2048, "memory": 10**9},
    }


def test_an_error_has_its_exit_code_and_its_remedy() -> None:
    """What happened, the code and what to do are on stderr; stdout stays empty."""
    with fake_keeper(lambda _: problem("query_timed_out", 408, "The query took longer than 30 s.")) as keeper:
        done = pondkeeper("query", "SELECT 1", "--url", keeper.url)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "error [query_timed_out]: The query took longer than 30 s.\n  Mend it.\n"


def test_slow_things_say_so_from_two_seconds_on() -> None:
    """Silence for two seconds, then a line on stderr; a quick answer says nothing."""
    with fake_keeper(lambda _: Reply(body=b"1\r\n", delay_s=3)) as keeper:
        done = pondkeeper("query", "SELECT 1", "--url", keeper.url, "-f", "csv")

    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "Waiting for the answer … 2 s" in done.stderr


OUTCOME = answer({"outcome": "committed", "version": 42, "rows_changed": [3, 0]})


def test_execute_prints_the_version_alone() -> None:
    """stdout is the version, ready for --at-least; the rest is narration."""
    with fake_keeper(lambda _: OUTCOME) as keeper:
        done = pondkeeper("execute", "DELETE FROM t", "DELETE FROM u; DELETE FROM v;", "--url", keeper.url)

    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "committed: 3 rows changed\n")
    assert [each["sql"] for each in keeper.requests[0].body["statements"]] == [
        "DELETE FROM t",
        "DELETE FROM u",
        "DELETE FROM v",
    ]


def test_execute_takes_a_file_and_one_statement_with_parameters(tmp_path: Path) -> None:
    """A file is an atomic list; one statement may have parameters, a list may not."""
    file = tmp_path / "m.sql"
    file.write_text("-- first\nCREATE TABLE t (a TEXT);\nINSERT INTO t VALUES (';');\n")
    with fake_keeper(lambda _: OUTCOME) as keeper:
        assert pondkeeper("execute", "-f", str(file), "--url", keeper.url).returncode == 0
        assert (
            pondkeeper("execute", "INSERT INTO t VALUES (?);", "-p", "5", "--url", keeper.url, "--json").returncode == 0
        )
        assert pondkeeper("execute", "DELETE FROM t; DELETE FROM u", "-p", "5", "--url", keeper.url).returncode == 2
        assert pondkeeper("execute", "--url", keeper.url).returncode == 2

    assert [each["sql"] for each in keeper.requests[0].body["statements"]][1] == "INSERT INTO t VALUES (';')"
    assert keeper.requests[1].body == {"sql": "INSERT INTO t VALUES (?)", "parameters": [5]}
    assert len(keeper.requests) == 2


def test_the_key_comes_from_the_environment() -> None:
    """PONDKEEPER_URL and PONDKEEPER_KEY are enough; options before or after the command go before them."""

    def respond(_: Request) -> Reply:
        return answer({"queries": []})

    with fake_keeper(respond) as keeper:
        assert pondkeeper("queries", PONDKEEPER_URL=keeper.url, PONDKEEPER_KEY="pk_env").returncode == 0
        assert (
            pondkeeper("queries", "--key", "pk_opt", PONDKEEPER_URL=keeper.url, PONDKEEPER_KEY="pk_env").returncode == 0
        )
        assert pondkeeper("--key", "pk_out", "--url", keeper.url, "queries", PONDKEEPER_URL="http://x").returncode == 0

    keys = [request.headers["Authorization"] for request in keeper.requests]
    assert keys == ["Bearer pk_env", "Bearer pk_opt", "Bearer pk_out"]

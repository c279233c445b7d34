"""What the commands say when no keeper runs: from files and the kernel alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.files.durable import link_atomic
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.writer.lease import Lease
from tests.support.fake_keeper import Reply, fake_keeper
from tests.support.keeper import pondkeeper

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'r'); print('open', flush=True); sys.stdin.read()"


def cli(paths: DatabasePaths, *arguments: str) -> subprocess.CompletedProcess[str]:
    return pondkeeper(*arguments, "--home", str(paths.home))


def said(paths: DatabasePaths, *arguments: str) -> Any:
    done = cli(paths, *arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@contextmanager
def opened(file: Path, mode: str = "w") -> Iterator[int]:
    """A foreign program that has the file open; its pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield process.pid
    finally:
        process.communicate()


def make_snapshot(paths: DatabasePaths, version: int) -> None:
    """A snapshot as a copier leaves it."""
    paths.snapshot(version).parent.mkdir(parents=True)
    shutil.copy(paths.file, paths.snapshot(version))
    paths.published_by_name.parent.mkdir(exist_ok=True)
    link_atomic(paths.published_by_name, paths.snapshot(version))


# status


def test_status_answers_without_a_keeper(database: DatabasePaths) -> None:
    """The database, its size, its newest version; exit code 0."""
    make_snapshot(database, 3)
    make_snapshot(database, 12)
    found = said(database, "status")
    text = cli(database, "status")

    assert found["keeper"]["state"] == "not running"
    (only,) = found["databases"]
    assert (only["name"], only["state"], only["version"]) == ("pond", "not served", 12)
    assert only["file"]["size_bytes"] == database.file.stat().st_size
    assert only["lease"]["holder"] is None
    assert only["foreign"] == []
    assert (text.returncode, text.stderr) == (0, "")
    assert "keeper not running" in text.stdout


def test_status_names_a_program_that_did_not_ask(database: DatabasePaths) -> None:
    """A foreign program is named with its pid and that it has no lease."""
    with opened(database.file) as pid:
        found = said(database, "status")["databases"][0]
        text = cli(database, "status").stdout

    assert [holder["pid"] for holder in found["foreign"]] == [pid]
    assert f"(pid {pid}), without the lease" in text


def test_status_names_who_has_the_lease(database: DatabasePaths) -> None:
    """The holder of the lease, with its reason and how many wait."""
    lease = Lease(database, who="dbt build", why="nightly")
    lease.acquire(1.0)
    try:
        found = said(database, "status")["databases"][0]
        text = cli(database, "status").stdout
    finally:
        lease.release()

    assert found["lease"]["holder"]["pid"] == os.getpid()
    assert f"dbt build (pid {os.getpid()}), with the lease, for: nightly" in text


def test_status_answers_when_the_keeper_does_not(database: DatabasePaths) -> None:
    """A keeper that holds its lock and says nothing is called so, and the rest is seen from outside."""
    home = Home(database.home)
    home.keeper_json.write_text(json.dumps({"pid": 77, "url": "http://x", "databases": {"pond": str(database.file)}}))
    with FlockFile(home.keeper_lock) as lock, fake_keeper(lambda _: Reply(delay_s=30), home.socket):
        assert lock.try_acquire()
        found = said(database, "status")

    assert (found["keeper"]["state"], found["keeper"]["pid"]) == ("not answering", 77)
    assert found["problem"]["code"] == "keeper_not_answering"
    assert found["databases"][0]["name"] == "pond"


def test_status_does_not_believe_the_note_of_a_dead_keeper(database: DatabasePaths) -> None:
    """keeper.json of a keeper that was killed says which databases there were, and nothing of a keeper."""
    Home(database.home).keeper_json.write_text(
        json.dumps({"pid": 1, "url": "http://x", "databases": {"pond": str(database.file)}})
    )
    found = said(database, "status")

    assert found["keeper"] == {"state": "not running", "home": str(database.home)}
    assert [each["name"] for each in found["databases"]] == ["pond"]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"databases": 5}', '{"databases": {"a": null}}', "\x00"])
def test_a_damaged_note_is_no_obstacle(database: DatabasePaths, note: str) -> None:
    """A keeper.json that cannot be read is as good as none."""
    Home(database.home).keeper_json.write_text(note)

    assert cli(database, "status").returncode == 0


# finding the home


def test_the_home_is_found_upwards_or_named(
    database: DatabasePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder below; by the home, its folder or its database file; by the variable; not found is an error."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert str(database.home) in pondkeeper("status").stdout
    monkeypatch.chdir("/")
    for named in (database.home, tmp_path, database.file):
        assert str(database.home) in pondkeeper("status", "--home", str(named)).stdout
        assert str(database.home) in pondkeeper("--home", str(named), "status").stdout
        assert str(database.home) in pondkeeper("status", PONDKEEPER_HOME=str(named)).stdout
    done = pondkeeper("status")

    assert (done.returncode, done.stdout) == (10, "")
    assert "keeper_not_running" in done.stderr


def test_a_typed_home_goes_before_a_url_of_the_environment(database: DatabasePaths) -> None:
    """Who types --home means it; typing both is refused."""
    done = pondkeeper("status", "--home", str(database.home), PONDKEEPER_URL="http://127.0.0.1:1")
    both = pondkeeper("status", "--home", str(database.home), "--url", "http://127.0.0.1:1")

    assert str(database.home) in done.stdout
    assert both.returncode == 2


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped --home is an error, and nothing is made at that place."""
    for command in (["status"], ["key", "create", "x"], ["key", "list"], ["snapshot", "list"], ["run", "echo"]):
        done = pondkeeper(*command[:1], "--home", str(tmp_path / "typo"), *command[1:])
        assert (done.returncode, done.stdout) == (10, ""), done
    assert list(tmp_path.iterdir()) == []


def test_asking_nobody_is_an_error_with_a_remedy(database: DatabasePaths) -> None:
    """A command that needs a keeper says at once that none runs, and how to start one."""
    began = time.monotonic()
    for command in (["query", "SELECT 1"], ["execute", "DELETE FROM t"], ["queries"], ["snapshot", "take"]):
        done = cli(database, *command)
        assert (done.returncode, done.stdout) == (10, "")
        assert "pondkeeper serve" in done.stderr
    assert time.monotonic() - began < 25  # a write that is repeated takes longer by itself


# snapshots


def test_snapshots_are_listed_and_found(database: DatabasePaths) -> None:
    """The newest first, by whom they are open; the path is the link that moves on, or that of one version."""
    make_snapshot(database, 1)
    make_snapshot(database, 2)
    with opened(database.snapshot(1), "r") as pid:
        listed = said(database, "snapshot", "list")
        assert str(pid) in cli(database, "snapshot", "list").stdout

    assert [each["version"] for each in listed] == [2, 1]
    assert [[holder["pid"] for holder in each["open_by"]] for each in listed] == [[], [pid]]
    assert cli(database, "snapshot", "path").stdout == f"{database.published_by_name}\n"
    assert cli(database, "snapshot", "path", "--version", "1").stdout == f"{database.snapshot(1)}\n"


def test_no_snapshot_is_an_error_for_path_and_none_for_list(database: DatabasePaths) -> None:
    """A script that asks for a path gets none it could open."""
    assert (cli(database, "snapshot", "path").returncode, cli(database, "snapshot", "path").stdout) == (2, "")
    assert said(database, "snapshot", "list") == []


# keys


def test_keys_without_a_keeper(database: DatabasePaths) -> None:
    """Keys are made, listed and revoked in control.db; the token is all of stdout; looking makes nothing."""
    assert said(database, "key", "list") == []
    assert not Home(database.home).control_db.exists()
    made = cli(database, "key", "create", "ci", "--role", "writer", "-d", "pond", "--expires", "1h")
    taken = cli(database, "key", "create", "ci")
    listed = said(database, "key", "list")
    revoked = cli(database, "key", "revoke", "ci")

    assert made.stdout.startswith("pk_")
    assert made.stdout.count("\n") == 1
    assert made.stdout.strip() not in made.stderr
    assert taken.returncode == 2
    assert [(key["name"], key["role"], key["databases"], key["state"]) for key in listed] == [
        ("ci", "writer", ["pond"], "live")
    ]
    assert revoked.returncode == 0
    assert said(database, "key", "list") == []
    assert said(database, "key", "list", "--all")[0]["state"] == "revoked"
    assert cli(database, "key", "revoke", "nobody").returncode == 2


# settings


def test_settings_say_where_each_comes_from(database: DatabasePaths) -> None:
    """Value, unit, default and origin of each; a prefix chooses; a wrong file is an error that names the line."""
    file = Home(database.home).settings_file
    file.write_text('[readers]\ncount = 3\ntimeout_s = "45s"\n')
    by_name = {each["name"]: each for each in said(database, "settings")}
    text = pondkeeper("settings", "readers.", "--home", str(database.home), PONDKEEPER_READERS_THREADS="1").stdout
    file.write_text("[readers]\n\ncuont = 3\n")
    wrong = cli(database, "settings")

    assert by_name["readers.count"]["value"] == 3
    assert "pondkeeper.toml" in by_name["readers.count"]["origin"]
    assert by_name["readers.timeout_s"]["effective"] == 45.0
    assert by_name["server.port"]["origin"] == "default"
    assert "environment PONDKEEPER_READERS_THREADS" in text
    assert "server.port" not in text
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "readers.count" in wrong.stderr
    assert cli(database, "settings", "nothing.").returncode == 2


# check


def findings(paths: DatabasePaths, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and what was found by its level."""
    done = cli(paths, "check", "--json", *arguments)
    found: dict[str, list[str]] = {"ok": [], "warning": [], "problem": []}
    for each in json.loads(done.stdout):
        assert each["level"] == "ok" or each["remedy"]
        found[each["level"]].append(f"{each['subject']}: {each['what']}")
    return done.returncode, found


def has(found: list[str], *words: str) -> bool:
    return any(all(word in text for word in words) for text in found)


def test_a_sound_installation(database: DatabasePaths) -> None:
    """The positive control for what follows: no problem, and the file, its WAL, its holders and the machine were looked at."""
    code, found = findings(database)

    assert (code, found["problem"]) == (0, [])
    for words in (
        ("pond", "storage version"),
        ("pond", "no WAL"),
        ("pond", "no program"),
        ("lease is free",),
        ("duckdb",),
        ("CPUs",),
    ):
        assert has(found["ok"], *words), words


def test_a_file_that_is_no_database(database: DatabasePaths) -> None:
    """It is a problem, with exit code 1, and --quiet shows it alone."""
    database.file.write_bytes(b"SQLite format 3\0" + bytes(50_000))
    code, found = findings(database, "--quiet")

    assert code == 1
    assert found["ok"] == []
    assert has(found["problem"], "pond", "not a DuckDB database")


def test_a_truncated_and_a_damaged_file(database: DatabasePaths) -> None:
    """Each is named as what it is."""
    whole = database.file.read_bytes()
    database.file.write_bytes(whole[:5000])
    assert has(findings(database)[1]["problem"], "truncated")
    database.file.write_bytes(whole[:4100] + b"\xff" + whole[4101:])
    assert has(findings(database)[1]["problem"], "damaged")


def test_who_has_the_file(database: DatabasePaths) -> None:
    """A program that did not ask is a warning; the WAL it leaves is seen; one with the lease is well."""
    with opened(database.file) as pid:
        _, found = findings(database)
        assert has(found["warning"], f"pid {pid}", "writing", "not asked")
    with opened(database.file, "r") as pid:
        assert has(findings(database)[1]["warning"], f"pid {pid}", "reading")
    lease = Lease(database, who="dbt", why="")
    lease.acquire(1.0)
    try:
        with opened(database.file) as pid:
            _, found = findings(database)
    finally:
        lease.release()

    assert has(found["ok"], f"pid {pid}", "writing")
    assert has(found["ok"], "lease is held by dbt")


def test_a_wal_is_measured(database: DatabasePaths) -> None:
    """A WAL is normal; a very large one is a warning, because the next open replays it."""
    database.wal.write_bytes(b"x" * 100)
    assert has(findings(database)[1]["ok"], "a WAL of 100 B")
    os.truncate(database.wal, 300 * 1024 * 1024)
    assert has(findings(database)[1]["warning"], "a WAL of 315 MB")


def test_a_home_that_others_can_read(database: DatabasePaths) -> None:
    """Keys and data lie there: it is a problem."""
    database.home.chmod(0o755)
    code, found = findings(database)

    assert code == 1
    assert has(found["problem"], "home", "other users")


def test_a_keeper_that_does_not_answer(database: DatabasePaths) -> None:
    """A held lock with no one behind the socket is a problem."""
    home = Home(database.home)
    with FlockFile(home.keeper_lock) as lock, socket.socket(socket.AF_UNIX) as listening:
        assert lock.try_acquire()
        listening.bind(str(home.socket))
        listening.listen()
        home.socket.chmod(0o600)
        code, found = findings(database)

    assert code == 1
    assert has(found["problem"], "keeper", "does not answer")


def test_a_second_keeper_of_the_same_database(database: DatabasePaths) -> None:
    """One that was started with another home is found by its claim beside the file."""
    database.turn.mkdir(parents=True, exist_ok=True)
    with FlockFile(database.claim_lock) as claim:
        assert claim.try_acquire()
        database.claim_json.write_text(json.dumps({"pid": os.getpid(), "home": "/elsewhere", "url": "http://x"}))
        _, found = findings(database)

    assert has(found["warning"], "keeper of another home", f"pid {os.getpid()}")


def test_what_dead_processes_left_behind(database: DatabasePaths) -> None:
    """Temporary files that nobody uses any more are counted."""
    temp = Home(database.home).temp / "reader-1"
    temp.mkdir(parents=True)
    (temp / "spilled").write_bytes(b"x" * 1000)
    os.utime(temp / "spilled", (time.time() - 7200,) * 2)

    assert has(findings(database)[1]["warning"], "1 temporary files")


def test_settings_that_ask_for_more_than_there_is(database: DatabasePaths) -> None:
    """Limits beyond the memory are a warning, a settings file that cannot be used a problem."""
    file = Home(database.home).settings_file
    file.write_text('[readers]\ncount = 1000\nmemory_limit_bytes = "64GB"\n')
    assert has(findings(database)[1]["warning"], "limits", "more than there is")
    file.write_text("[readers]\ncount = true\n")
    assert has(findings(database)[1]["problem"], "settings")


def test_a_snapshot_from_the_future(database: DatabasePaths) -> None:
    """A clock that went back is noticed by what was made since; links to nowhere are a problem."""
    make_snapshot(database, 1)
    os.utime(database.snapshot(1), (time.time() + 9000,) * 2)
    assert has(findings(database)[1]["warning"], "future")
    database.published_by_name.unlink()
    assert has(findings(database)[1]["problem"], "published")


def test_one_file_before_anybody_serves_it(tmp_path: Path) -> None:
    """`check FILE` needs no home and makes none."""
    duckdb = pytest.importorskip("duckdb")
    file = tmp_path / "new.duckdb"
    duckdb.connect(str(file)).close()
    done = pondkeeper("check", str(file))

    assert done.returncode == 0
    assert "new: a DuckDB file" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["new.duckdb"]
    assert pondkeeper("check", str(tmp_path / "none.duckdb")).returncode == 2


def test_check_takes_no_lock_away(database: DatabasePaths) -> None:
    """The examination reads the file's bytes: not in the process that has it open, so no lock is lost (the lock trap)."""
    with opened(database.file) as pid:
        cli(database, "check")
        held = said(database, "status")["databases"][0]["foreign"]

    assert [holder["pid"] for holder in held] == [pid]


def test_interrupting_a_command_is_quiet(database: DatabasePaths) -> None:
    """Ctrl-C ends a command with 130 and no traceback."""
    from tests.support.keeper import command_line, program_environment

    home = Home(database.home)
    with fake_keeper(lambda _: Reply(delay_s=30), home.socket) as keeper:
        process = subprocess.Popen(
            command_line("query", "SELECT 1", "--home", str(database.home)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=program_environment(),
        )
        while not keeper.requests:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err

"""`run` without a keeper: the lease, the program, its signals, and who is waited for."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pondkeeper.files.locks import is_flocked
from pondkeeper.files.paths import DatabasePaths, Home
from tests.support.keeper import command_line, pondkeeper, program_environment, wait_until
from tests.support.processes import is_alive
from tests.support.programs import Program

HOLD = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


def start(paths: DatabasePaths, *arguments: str, options: tuple[str, ...] = (), **extra: str) -> subprocess.Popen[str]:
    """`pondkeeper run OPTIONS -- ARGUMENTS` in the folder of the database."""
    return subprocess.Popen(
        command_line("run", *options, "--", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=paths.file.parent,
        env=program_environment(**extra),
    )


@contextmanager
def holding(paths: DatabasePaths, *command: str, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A program that has the lease until its stdin ends; `command` prints a line when it is there."""
    process = start(
        paths,
        *(command or (sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()")),
        options=options,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        let_go(process)


def let_go(process: subprocess.Popen[str]) -> None:
    """End the program by the end of its stdin."""
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        if stream is process.stdout:
            process.wait(20)
        stream.close()


def run(paths: DatabasePaths, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return pondkeeper("run", "--home", str(paths.home), *options, "--", *arguments)


def test_a_program_gets_the_file_the_lease_and_its_own_exit_code(database: DatabasePaths) -> None:
    """It finds the file in its environment, may open it for writing, and its exit code and output are ours."""
    code = (
        "import duckdb, os, sys; c = duckdb.connect(os.environ['PONDKEEPER_DATABASE']);"
        "c.execute('CREATE TABLE t AS SELECT 42 AS a'); print('data'); sys.exit(7)"
    )
    done = run(database, sys.executable, "-c", code)

    assert (done.returncode, done.stdout) == (7, "data\n")
    assert "ended with 7" in done.stderr
    assert not is_flocked(database.lease_lock)
    assert not database.lease_json.exists()


def test_two_programs_take_turns_and_say_who_is_waited_for(database: DatabasePaths) -> None:
    """The second waits for the first, names it with its reason on stderr, and runs when it has ended."""
    with holding(database, options=("--reason", "nightly load")) as first:
        second = start(database, "echo", "mine")
        assert second.stderr is not None
        said = second.stderr.readline()
        assert is_flocked(database.lease_lock)
        let_go(first)
        out, rest = second.communicate(timeout=60)

    assert said.startswith("waiting for ")
    assert str(first.pid) in said
    assert "nightly load" in said
    assert (out, second.returncode) == ("mine\n", 0)
    assert "ended with 0" in rest


@pytest.mark.parametrize("options", [("--no-wait",), ("--wait", "100ms")])
def test_who_does_not_want_to_wait_is_told_who_has_it(database: DatabasePaths, options: tuple[str, ...]) -> None:
    """The program is not started; the exit code says that the turn did not come, and the holder is named."""
    with holding(database) as first:
        done = run(database, "echo", "mine", options=options)

    assert (done.returncode, done.stdout) == (75, "")
    assert f"pid {first.pid}" in done.stderr


def test_a_program_that_did_not_ask_is_named_and_waited_for(database: DatabasePaths) -> None:
    """A plain script has the file open: it is named, waited for, and the lease is not given away meanwhile."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    refused = run(database, "echo", "mine", options=("--no-wait",))
    waiting = start(database, "echo", "mine")
    assert waiting.stderr is not None
    said = waiting.stderr.readline()
    assert is_flocked(database.lease_lock)
    holder.stdin.close()
    out, _ = waiting.communicate(timeout=60)
    holder.wait()
    holder.stdout.close()

    assert (refused.returncode, refused.stdout) == (75, "")
    assert f"pid {holder.pid}" in refused.stderr
    assert f"pid {holder.pid}" in said
    assert (out, waiting.returncode) == ("mine\n", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(database: DatabasePaths, number: signal.Signals) -> None:
    """What we are sent, the program gets, once; it decides what comes of it."""
    code = (
        "import signal, sys, time\nseen = []\n"
        f"signal.signal({int(number)}, lambda *_: seen.append(1))\n"
        "print('there', flush=True)\nwhile not seen: time.sleep(0.01)\n"
        "time.sleep(0.3)\nsys.exit(40 + len(seen))"
    )
    process = start(database, sys.executable, "-c", code)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == 41


def test_ctrl_c_reaches_the_program_once(database: DatabasePaths) -> None:
    """The terminal sends SIGINT to both of us: it is not passed on a second time, which would abort a dbt run."""
    code = (
        "import signal, sys, time\nseen = []\nsignal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "print('there', flush=True)\nwhile not seen: time.sleep(0.01)\ntime.sleep(0.5)\nsys.exit(40 + len(seen))"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(database.file.parent)
        os.execve(sys.executable, command_line("run", "--", sys.executable, "-c", code), program_environment())
    shown = b""
    while b"there" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 41


def test_a_program_that_a_signal_kills(database: DatabasePaths) -> None:
    """128 + the signal, as every shell says it."""
    assert run(database, "sh", "-c", "kill -KILL $$").returncode == 128 + 9


def test_the_lease_lives_as_long_as_the_program(database: DatabasePaths) -> None:
    """`kill -9` of `pondkeeper run` leaves the program running, and the lease with it, until the program ends."""
    with_lease = start(database, sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()")
    assert with_lease.stdout is not None
    assert with_lease.stdout.readline() == "there\n"
    with_lease.kill()
    with_lease.wait()
    assert is_flocked(database.lease_lock)
    assert run(database, "echo", "mine", options=("--no-wait",)).returncode == 75
    with_lease.communicate()  # closes its stdin
    wait_until(lambda: not is_flocked(database.lease_lock), what="the end of the lease")

    assert run(database, "echo", "mine", options=("--no-wait",)).returncode == 0


def test_a_killed_waiter_leaves_the_queue(database: DatabasePaths) -> None:
    """Who dies while it waits is in nobody's way: those behind it get their turn."""
    with holding(database) as first:
        waiter = start(database, "echo", "never")
        assert waiter.stderr is not None
        assert waiter.stderr.readline()
        waiter.kill()
        waiter.communicate()
        let_go(first)
        assert run(database, "echo", "mine", options=("--wait", "10s")).stdout == "mine\n"


@pytest.mark.parametrize(("program", "code"), [("no-such-program-at-all", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_be_started(database: DatabasePaths, program: str, code: int) -> None:
    """As shells do: 127 when there is none, 126 when it cannot be executed; the lease is free again."""
    done = run(database, program)

    assert (done.returncode, done.stdout) == (code, "")
    assert program in done.stderr
    assert not is_flocked(database.lease_lock)


def test_options_after_the_program_are_its_own(database: DatabasePaths) -> None:
    """Also without `--`, nothing after the program's name is read by us."""
    done = pondkeeper("run", "--home", str(database.home), "echo", "--wait", "-x", "--help")

    assert done.stdout == "--wait -x --help\n"


def test_secrets_in_arguments_are_shown_to_nobody(database: DatabasePaths) -> None:
    """Those who wait see the program's name, not what it was given."""
    with holding(database, "sh", "-c", "echo there; cat; : password=hunter2"):
        said = json.loads(database.lease_json.read_text())
    with holding(database, "env", "postgres://me:hunter2@host=1", "sh", "-c", "echo there; cat"):
        said_also = json.loads(database.lease_json.read_text())

    assert said["who"] == "sh"
    assert said_also["who"] == "env"


def test_a_database_by_its_file_or_name(database: DatabasePaths, tmp_path: Path) -> None:
    """With several databases one must be named; a file may be named that no home knows."""
    (tmp_path / "other.duckdb").write_bytes(database.file.read_bytes())
    refused = run(database, "echo")
    by_name = run(database, "sh", "-c", "echo $PONDKEEPER_DATABASE", options=("-d", "other"))
    by_file = run(database, "sh", "-c", "echo $PONDKEEPER_DATABASE", options=("-d", str(tmp_path / "other.duckdb")))
    unknown = run(database, "echo", options=("-d", "third"))

    assert refused.returncode == 2
    assert "other, pond" in refused.stderr
    assert by_name.stdout == by_file.stdout == f"{tmp_path / 'other.duckdb'}\n"
    assert unknown.returncode == 2


def test_a_program_sees_a_broken_pipe_as_usual(database: DatabasePaths) -> None:
    """Python ignores SIGPIPE; the program must not inherit that, or `yes | head` never ends."""
    began = time.monotonic()
    done = run(database, "sh", "-c", "yes | head -1")

    assert (done.returncode, done.stdout) == (0, "y\n")
    assert time.monotonic() - began < 20


DEAF = "trap '' TERM; (setsid sh -c \"trap '' TERM; sleep 31\") & echo $!; sleep 31; sleep 32"


def test_a_program_that_holds_the_database_for_too_long_is_ended(database: DatabasePaths) -> None:
    """SIGTERM after --max-hold, and its own exit code; the lease is free, and those who waited were told the limit."""
    with Program(database.file, "--max-hold", "1.5s").there() as program:
        told = json.loads(database.lease_json.read_text())
        code, said = program.end()

    assert code == 124
    assert "has had the database for 1.5 s" in said
    assert "is killed" not in said
    assert told["max_hold_s"] == 1.5
    assert not is_flocked(database.lease_lock)


@pytest.mark.fault
def test_a_program_that_is_deaf_is_killed_with_its_children(database: DatabasePaths) -> None:
    """SIGKILL after --kill-after, also for a child that has left the session and hears nothing."""
    with Program(database.file, "--max-hold", "500ms", "--kill-after", "500ms", command=("sh", "-c", DEAF)) as program:
        child = int(program.heard())
        code, said = program.end()

    assert code == 124
    assert "is killed" in said
    wait_until(lambda: not is_alive(child), what="the end of its child")
    assert not is_flocked(database.lease_lock)


def test_the_longest_hold_is_a_setting_of_the_home(database: DatabasePaths) -> None:
    """`lease.max_hold_s` of the settings file holds for every program, and --max-hold says otherwise for one."""
    Home(database.home).settings_file.write_text("[lease]\nmax_hold_s = 0.5\n")

    assert run(database, "sleep", "30").returncode == 124
    assert run(database, "sleep", "0.8", options=("--max-hold", "1m")).returncode == 0


LEAVES_WRITER = """
import os, subprocess, sys
code = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code, os.environ["PONDKEEPER_DATABASE"]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os._exit(3)
"""


@pytest.mark.fault
def test_what_a_program_leaves_behind_with_the_file_open_is_ended(database: DatabasePaths) -> None:
    """The lease is not given on while a child of the program has the database open: it is named and ended first."""
    with Program(database.file, command=(sys.executable, "-c", LEAVES_WRITER)) as program:
        left = int(program.heard())
        assert is_alive(left), "the positive control"
        code, said = program.end()

    assert code == 3
    assert f"(pid {left}) with the database open" in said
    assert not is_alive(left)
    assert run(database, "true", options=("--no-wait",)).returncode == 0


def test_a_daemon_that_does_not_have_the_file_open_lives_on_and_holds_nothing(database: DatabasePaths) -> None:
    """Agents and the like that a program starts are left alone, and the lease is not theirs, though they inherited it."""
    with Program(database.file, command=("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!")) as program:
        daemon = int(program.heard())
        assert program.end()[0] == 0
    lives = is_alive(daemon)
    next_one = run(database, "true", options=("--no-wait",))
    os.kill(daemon, signal.SIGKILL)

    assert lives
    assert next_one.returncode == 0


def test_who_waits_is_told_his_place(database: DatabasePaths) -> None:
    """On stderr: the holder with reason and time, and the place in the line; `queue` shows the same without a keeper."""
    with Program(database.file, "--reason", "nightly load").there() as first, Program(database.file) as second:
        second_told = second.told()
        with Program(database.file, "--reason", "report") as third:
            third_told = third.told()
            line = json.loads(pondkeeper("queue", "--home", str(database.home), "--json").stdout)
            shown = pondkeeper("queue", "--home", str(database.home))
            first.let_go()
            second.there().let_go()
            assert third.there().let_go()[0] == 0

    assert "nightly load" in second_told
    assert f"pid {first.pid}" in second_told
    assert "since 20" in second_told
    assert second_told.endswith("place 1 in line")
    assert third_told.endswith("place 2 in line")
    assert [(entry["kind"], entry["pid"], entry["why"]) for entry in line["line"]] == [
        ("lease", second.pid, ""), ("lease", third.pid, "report")
    ]  # fmt: skip
    assert line["holder"]["why"] == "nightly load"
    assert "2 programs wait" in shown.stderr
    assert str(third.pid) in shown.stdout


@pytest.mark.fault
def test_a_killed_holder_is_forgotten_at_the_next_look(database: DatabasePaths) -> None:
    """kill -9 of `run` and its program: nothing says any more that they hold anything."""
    with Program(database.file, command=("sh", "-c", "echo $$; exec sleep 60")) as program:
        child = int(program.heard())
        program.process.kill()
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not is_alive(child), what="its end")
        assert database.lease_json.exists(), "the positive control"
        status = json.loads(pondkeeper("status", "--home", str(database.home), "--json").stdout)

    assert status["databases"][0]["lease"] == {"holder": None, "waiting": 0, "programs": []}
    assert not database.lease_json.exists()

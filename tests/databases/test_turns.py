"""Turns beside a keeper: one line of writes and programs, first come, first served, and nobody starves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise

import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import DatabaseBusy, WriteTimedOut
from tests.databases.conftest import wait_closed
from tests.support.asking import Asked, SlowClient, code_of, running
from tests.support.keeper import KeeperProcess, program_environment, wait_until
from tests.support.processes import is_alive
from tests.support.programs import Program

INSERT = """
import duckdb, os, sys
with duckdb.connect(os.environ["PONDKEEPER_DATABASE"]) as connection:
    connection.execute("INSERT INTO t VALUES (?)", [int(sys.argv[1])])
"""
LONG = "INSERT INTO t SELECT a.range FROM range(100000) a, range(100000) b, range(100000) c WHERE a.range + b.range + c.range < 0"
CONTENDER = """
import sys, time
from pathlib import Path
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.lease import Lease
lease = Lease(DatabasePaths(Path(sys.argv[1]), Path(sys.argv[2])), who="contender", why="")
for _ in range(12):
    lease.acquire(60)
    print(time.monotonic(), flush=True)
    time.sleep(0.05)
    lease.release()
"""


def kinds(client: Client) -> list[str]:
    return [entry["kind"] for entry in client.queue()["line"]]


def inserter(keeper: KeeperProcess, number: int, *options: str) -> Program:
    """A program that inserts one row when it has its turn."""
    return Program(keeper.target, *options, command=(sys.executable, "-c", INSERT, str(number)))


def in_line(client: Client, count: int) -> None:
    wait_until(lambda: len(client.queue()["line"]) == count, what=f"{count} in line", timeout_s=30)


def test_writes_and_programs_have_their_turns_in_the_order_in_which_they_asked(pond: KeeperProcess, client: Client) -> None:
    """Behind a program: write, program, write, program, write. The line shows that order, and the rows are in it."""
    with ExitStack() as programs:
        first = programs.enter_context(Program(pond.target, "--reason", "nightly load")).there()
        writes = [Asked(lambda: client.execute("INSERT INTO t VALUES (1)"))]
        in_line(client, 1)
        others = [programs.enter_context(inserter(pond, 2, "--reason", "second"))]
        in_line(client, 2)
        writes.append(Asked(lambda: client.execute("INSERT INTO t VALUES (3)")))
        in_line(client, 3)
        others.append(programs.enter_context(inserter(pond, 4)))
        in_line(client, 4)
        writes.append(Asked(lambda: client.execute("INSERT INTO t VALUES (5)")))
        in_line(client, 5)
        line = client.queue()
        first.let_go()
        assert [other.end()[0] for other in others] == [0, 0]
        version = max(write.outcome().version for write in writes)

    assert [entry["kind"] for entry in line["line"]] == ["write", "lease", "write", "lease", "write"]
    assert [entry["place"] for entry in line["line"]] == [0, 1, 2, 3, 4]
    assert {entry["state"] for entry in line["line"]} == {"waiting"}
    assert (line["holder"]["why"], line["line"][1]["why"]) == ("nightly load", "second")
    assert line["line"][1]["pid"] == others[0].pid
    assert line["line"][1]["since"] > line["line"][0]["since"] > line["holder"]["since"]
    assert client.query("SELECT n FROM t ORDER BY rowid", at_least=version).rows == [[1], [2], [3], [4], [5]]


@pytest.mark.timeout(150)
def test_nobody_starves_between_a_stream_of_writes_and_programs_that_come_again(pond: KeeperProcess, client: Client) -> None:
    """Three programs that ask anew as soon as they have given back, and writes all the time: everybody goes on."""
    command = [sys.executable, "-c", CONTENDER, str(pond.target), str(pond.home.root)]
    contenders = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=program_environment()) for _ in range(3)
    ]
    writes: list[tuple[float, float]] = []
    while any(contender.poll() is None for contender in contenders) and len(writes) < 500:
        asked_at = time.monotonic()
        client.execute("INSERT INTO t VALUES (?)", [len(writes)])
        writes.append((asked_at, time.monotonic()))
    turns = sorted(float(line) for contender in contenders for line in contender.communicate(timeout=60)[0].split())

    assert len(turns) == 3 * 12
    during = [each for each in writes if turns[0] < each[0] and each[1] < turns[-1]]
    assert during, "the positive control: there were writes meanwhile"
    passed = [sum(asked < turn < done for turn in turns) for asked, done in during]
    # Why 4: the one whose turn it is, and the three tickets that a write can find before it; each comes once.
    assert max(passed) <= 4, passed


def test_a_write_behind_a_program_is_told_who_has_the_lease(pond: KeeperProcess, client: Client) -> None:
    """Holder, reason, since when, and how many are before it; reads go on, and the program is not disturbed."""
    with Program(pond.target, "--reason", "nightly load").there() as program:
        before = Asked(lambda: client.execute("INSERT INTO t VALUES (1)"))
        in_line(client, 1)
        wait_until(lambda: client.status("pond")["writer"]["waiting_for"], what="a writer that waits")
        late = Asked(lambda: client.execute("INSERT INTO t VALUES (2)", wait_s=0.5)).outcome()
        reads = [client.query("SELECT count(*) FROM t").scalar() for _ in range(3)]
        assert program.let_go()[0] == 0
        assert before.outcome().outcome == "committed"

    assert isinstance(late, DatabaseBusy)
    assert reads == [0, 0, 0]
    holder = late.details["holder"]
    assert (holder["why"], holder["pid"], late.details["writes_before"]) == ("nightly load", program.pid, 1)
    for said in ("0.5 s in vain", "nightly load", f"pid {program.pid}", f"since {holder['since']}", "1 writes were before it"):
        assert said in late.message
    assert "wait_s" in late.remedy


def test_a_program_behind_a_program_is_told_who_has_the_lease(pond: KeeperProcess, client: Client) -> None:
    """The second in line is told of the holder and of who is before it; the exit code says that its turn did not come."""
    with Program(pond.target, "--reason", "nightly load").there() as first, inserter(pond, 1) as second:
        wait_until(lambda: client.queue()["programs_waiting"] == 1, what="the second in line")
        with inserter(pond, 2, "--wait", "300ms") as third:
            code, said = third.end()
        first.let_go()
        assert second.end()[0] == 0

    assert code == 75
    for words in ("nightly load", f"pid {first.pid}", "since 20", "1 program waits before this one"):
        assert words in said


def test_a_program_behind_a_long_write_is_told_that_the_keeper_has_the_lease(pond: KeeperProcess, client: Client) -> None:
    """The writer runs a statement: a program that cannot wait for its end is told so, and the write goes on."""
    long = Asked(lambda: client.execute(LONG))
    entry = running(client, LONG[:30], "running")
    with inserter(pond, 1, "--no-wait") as program:
        code, said = program.end()
    is_over = long.is_done()
    client.cancel(entry["id"])

    assert not is_over
    assert code_of(long.outcome()) == "query_cancelled"
    assert code == 75
    assert "keeper (pid" in said
    assert "writes through the queue" in said


def test_a_write_behind_a_long_write_is_told_that_the_keeper_has_the_lease(pond: KeeperProcess, client: Client) -> None:
    """It waited for its turn, not for its end, and the error says which limit that was."""
    long = Asked(lambda: client.execute(LONG))
    entry = running(client, LONG[:30], "running")
    late = Asked(lambda: client.execute("INSERT INTO t VALUES (1)", wait_s=0.3, timeout_s=20)).outcome()
    client.cancel(entry["id"])
    long.outcome()

    assert isinstance(late, WriteTimedOut)
    assert late.details["writes_before"] == 1
    assert late.details["holder"]["who"] == "keeper"
    assert "0.3 s in vain for its turn: 1 writes were before it; the keeper's writer" in late.message
    assert "writer.wait_s" in late.remedy


def test_waiting_does_not_count_as_running(pond: KeeperProcess, client: Client) -> None:
    """A write that may run for a second waits for its turn for much longer, and is then applied."""
    with Program(pond.target).there() as program:
        write = Asked(lambda: client.execute("INSERT INTO t VALUES (1)", timeout_s=1.0))
        in_line(client, 1)
        time.sleep(2.0)
        assert not write.is_done()
        program.let_go()
        assert write.outcome().outcome == "committed"
    running_too_long = Asked(lambda: client.execute(LONG, wait_s=60, timeout_s=1.0)).outcome()

    assert isinstance(running_too_long, WriteTimedOut)
    assert running_too_long.details == {"timeout_s": 1.0}


def test_a_write_is_dropped_in_the_writers_hands_when_its_client_goes(pond: KeeperProcess, client: Client) -> None:
    """The writer waits for a program with the write; it has not begun, so it is dropped with its client."""
    with Program(pond.target).there() as program:
        leaving = SlowClient(pond, "INSERT INTO t VALUES (7)", timeout_s=30, path="/v1/execute")
        wait_until(lambda: client.status("pond")["writer"]["waiting_for"], what="a writer that waits")
        in_line(client, 1)
        leaving.leave()
        in_line(client, 0)
        program.let_go()
    version = client.execute("INSERT INTO t VALUES (8)").version

    assert client.query("FROM t", at_least=version).rows == [[8]]


def test_a_write_that_waits_for_a_program_can_be_cancelled(pond: KeeperProcess, client: Client) -> None:
    """DELETE takes it out of the line; those behind it are applied in order when the program has ended."""
    with Program(pond.target).there() as program:
        writes = []
        for number in range(3):
            writes.append(Asked(lambda number=number: client.execute("INSERT INTO t VALUES (?)", [number])))
            in_line(client, number + 1)
        client.cancel(client.queue()["line"][0]["id"])
        cancelled = writes[0].outcome()
        assert not writes[1].is_done()
        program.let_go()
        version = max(write.outcome().version for write in writes[1:])

    assert code_of(cancelled) == "query_cancelled"
    assert client.query("SELECT n FROM t ORDER BY rowid", at_least=version).rows == [[1], [2]]


@pytest.mark.fault
def test_a_killed_holder_frees_the_lease_and_is_forgotten(pond: KeeperProcess, client: Client) -> None:
    """kill -9 of `run` and its program: the write that waits has its turn at once, and the JSON goes with the lease."""
    lease_json = pond.database.lease_json
    with Program(pond.target, command=("sh", "-c", "echo $$; exec sleep 60")) as program:
        child = int(program.heard())
        write = Asked(lambda: client.execute("INSERT INTO t VALUES (1)"))
        in_line(client, 1)
        program.process.kill()
        os.kill(child, signal.SIGKILL)
        assert write.outcome().outcome == "committed"
        assert not is_alive(child)
    wait_closed(client)
    wait_until(lambda: not lease_json.exists(), what="an end of the JSON")


@pytest.mark.fault
def test_a_killed_holder_is_forgotten_also_when_nobody_waits(pond: KeeperProcess, client: Client) -> None:
    """The keeper looks now and then, and clears what a dead holder has left."""
    lease_json = pond.database.lease_json
    with Program(pond.target, command=("sh", "-c", "echo $$; exec sleep 60")) as program:
        child = int(program.heard())
        assert lease_json.exists(), "the positive control"
        program.process.kill()
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not lease_json.exists(), what="an end of the JSON")
    assert client.queue()["holder"] is None


def test_the_work_of_a_program_makes_one_version(pond: KeeperProcess, client: Client) -> None:
    """The keeper notices a change by itself and is asked to publish it as well: it is published once."""
    versions = [client.query("SELECT 1").version]
    for number in range(4):
        with inserter(pond, number) as program:
            assert program.end()[0] == 0
        versions.append(client.query("SELECT 1").version)
        assert client.query("SELECT count(*) FROM t").scalar() == number + 1

    # Why not always 1: a look that falls between the close of the file and the answer may publish once more.
    steps = [after - before for before, after in pairwise(versions)]
    assert sum(steps) <= len(steps) + 1, steps


def test_a_reader_sees_programs_and_no_foreign_write(pond: KeeperProcess, client: Client) -> None:
    """Who waits and why is for everybody to see, but for what a write says and whose it is."""
    reader = pond.client(client.create_key("looker", "reader")["token"])
    with Program(pond.target).there() as first, Program(pond.target, "--reason", "report") as second:
        wait_until(lambda: client.queue()["programs_waiting"] == 1, what="the second in line")
        write = Asked(lambda: client.execute("INSERT INTO t VALUES (4711)"))
        in_line(client, 2)
        seen, shown = reader.queue(), pond.cli("queue")
        first.let_go()
        second.there().let_go()
        write.outcome()

    assert [(entry["kind"], entry["why"]) for entry in seen["line"]] == [("lease", "report"), ("write", None)]
    assert "4711" in shown.stdout
    assert "report" in shown.stdout
    assert "1 write in the queue, 1 program waits for the lease" in shown.stderr


def test_no_ticket_stays_behind(pond: KeeperProcess, client: Client) -> None:
    """When everybody has gone, the line is empty on disk as well."""
    with inserter(pond, 1) as program:
        assert program.end()[0] == 0
    wait_closed(client)
    assert list(pond.database.tickets.iterdir()) == []

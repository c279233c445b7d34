"""The lease: flock decides, tickets keep the order, and a dead program holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pondkeeper.errors import DatabaseBusy
from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer import tickets
from pondkeeper.writer.lease import Holder, Lease, current_holder, waiting_count
from tests.support.keeper import wait_until

HOLD = """
import sys, time
from pathlib import Path
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.lease import Lease
paths = DatabasePaths(Path(sys.argv[1]), Path(sys.argv[2]))
lease = Lease(paths, who=sys.argv[3], why="a test")
lease.acquire(60)
print("held", flush=True)
sys.stdin.readline()
lease.release()
"""


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    return DatabasePaths(tmp_path / "pond.duckdb", tmp_path / ".pondkeeper")


def hold(paths: DatabasePaths, who: str) -> subprocess.Popen[bytes]:
    """Another program that takes the lease and keeps it until its stdin is closed."""
    command = [sys.executable, "-c", HOLD, str(paths.file), str(paths.home), who]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def wait_held(program: subprocess.Popen[bytes]) -> None:
    assert program.stdout is not None
    assert program.stdout.readline() == b"held\n"


def finish(program: subprocess.Popen[bytes]) -> None:
    program.communicate(b"\n")


def test_lease_excludes_another_program_and_names_it(paths: DatabasePaths) -> None:
    """Whoever does not get the lease in time learns who holds it, and why."""
    holder = hold(paths, "nightly load")
    wait_held(holder)
    waits: list[Holder | None] = []
    with pytest.raises(DatabaseBusy, match="nightly load") as busy:
        Lease(paths, "me", "").acquire(0.2, lambda holder, ahead: waits.append(holder))
    finish(holder)

    assert busy.value.details["holder"]["pid"] == holder.pid
    assert waits[0] is not None
    assert waits[0].why == "a test"


def test_lease_is_free_the_moment_its_holder_is_killed(paths: DatabasePaths) -> None:
    """kill -9 of the holder frees the lease at once; the JSON beside it goes with the first look."""
    holder = hold(paths, "victim")
    wait_held(holder)
    assert current_holder(paths) is not None
    holder.send_signal(signal.SIGKILL)
    holder.communicate()

    assert paths.lease_json.exists(), "the positive control: nobody is left who could have cleared it"
    assert current_holder(paths) is None
    assert not paths.lease_json.exists(), "whoever looks clears what the dead one left"
    lease = Lease(paths, "heir", "")
    lease.acquire(20.0)
    assert (found := current_holder(paths)) is not None
    assert found.who == "heir"
    lease.release()
    assert not paths.lease_json.exists()


def test_lease_outlives_its_taker_in_a_child_that_inherited_it(paths: DatabasePaths) -> None:
    """A program that inherited the lease holds it as long as it lives: it may have the file open."""
    lease = Lease(paths, "run", "")
    lease.acquire(20.0)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lease.fileno()])
    lease.release()

    assert current_holder(paths) is not None
    child.kill()
    child.wait()
    assert current_holder(paths) is None


def test_tickets_are_served_in_order(paths: DatabasePaths) -> None:
    """Programs get the lease in the order in which they asked for it."""
    first = Lease(paths, "first", "")
    first.acquire(20.0)
    order: list[int] = []

    def wait(number: int) -> None:
        lease = Lease(paths, str(number), "")
        lease.acquire(20)
        order.append(number)
        time.sleep(0.03)
        lease.release()

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while waiting_count(paths) < number + 1:
            time.sleep(0.002)
    first.release()
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3, 4]
    assert waiting_count(paths) == 0


def test_ticket_of_a_dead_program_does_not_block(paths: DatabasePaths) -> None:
    """A program that is killed while it waits leaves its ticket behind, and nobody waits for it."""
    lease = Lease(paths, "holder", "")
    lease.acquire(20.0)
    waiter = hold(paths, "killed while waiting")
    deadline = time.monotonic() + 20
    while waiting_count(paths) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waiting_count(paths) == 1  # the positive control: a living ticket counts
    waiter.send_signal(signal.SIGKILL)
    waiter.communicate()
    lease.release()

    assert tickets.waiting(paths.tickets) == []
    Lease(paths, "next", "").acquire(20.0)


def test_waiting_can_be_cancelled(paths: DatabasePaths) -> None:
    """A request that is cancelled stops waiting and gives its ticket back."""
    lease = Lease(paths, "holder", "")
    lease.acquire(20.0)
    began = time.monotonic()
    with pytest.raises(DatabaseBusy):
        Lease(paths, "cancelled", "").acquire(60, is_cancelled=lambda: True)
    lease.release()

    assert time.monotonic() - began < 10
    assert waiting_count(paths) == 0


def test_many_programs_have_their_turns_in_the_order_of_their_tickets(paths: DatabasePaths, tmp_path: Path) -> None:
    """Twelve processes that ask one after the other: each has its turn before the next, and none is passed over."""
    first = Lease(paths, "first", "")
    first.acquire(20.0)
    log = tmp_path / "turns"
    programs = []
    for number in range(12):
        command = [sys.executable, "-c", TURN, str(paths.file), str(paths.home), str(number), str(log)]
        programs.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}))
        wait_until(lambda number=number: waiting_count(paths) == number + 1, what="its ticket", timeout_s=30)
    asked = [int(place.who) for place in tickets.places(paths.tickets)]
    first.release()
    assert [program.wait(60) for program in programs] == [0] * 12

    assert asked == list(range(12))
    assert [int(line) for line in log.read_text().split()] == asked


TURN = """
import sys, time
from pathlib import Path
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.lease import Lease
lease = Lease(DatabasePaths(Path(sys.argv[1]), Path(sys.argv[2])), who=sys.argv[3], why="")
lease.acquire(60)
with open(sys.argv[4], "a") as log:
    print(sys.argv[3], file=log)
time.sleep(0.02)
lease.release()
"""


def test_a_ticket_that_is_dated_back_is_before_those_that_came_meanwhile(paths: DatabasePaths) -> None:
    """Who hands on an older wish stands where that wish would: that is how the writer keeps to the order of its writes."""
    asked_ns = time.monotonic_ns()
    younger = tickets.Ticket(paths.tickets, "younger", "")
    older = tickets.Ticket(paths.tickets, "older", "a write", asked_ns=asked_ns)

    assert (older.ahead(), younger.ahead()) == (0, 1)
    assert tickets.oldest_ns(paths.tickets) == asked_ns
    assert [place.describe() for place in tickets.places(paths.tickets)] == [
        f"older (pid {os.getpid()}), for: a write", f"younger (pid {os.getpid()})"
    ]  # fmt: skip
    older.drop()
    younger.drop()
    assert tickets.oldest_ns(paths.tickets) is None


def test_what_died_before_its_ticket_was_whole_leaves_nothing(paths: DatabasePaths) -> None:
    """A half-made ticket of a killed program is removed; one that is being made stays."""
    make_folder(paths.tickets)
    dead = paths.tickets / ".00000000000000000001-dead.new"
    dead.touch()
    making = FlockFile(paths.tickets / ".00000000000000000002-making.new")
    assert making.try_acquire()

    assert tickets.waiting(paths.tickets) == []
    assert not dead.exists()
    assert making.path.exists()
    making.release()


def test_who_does_not_want_to_wait_is_not_put_off_by_those_who_only_look(paths: DatabasePaths) -> None:
    """Asking who has the lease locks it for a moment: nobody is refused because of that."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.001):
            current_holder(paths)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    for _ in range(40):
        lease = Lease(paths, "in a hurry", "")
        lease.acquire(0.0)
        lease.release()
    is_over.set()
    for looker in lookers:
        looker.join()


def test_the_lease_can_be_taken_from_those_who_inherited_it(paths: DatabasePaths) -> None:
    """A daemon that a program left behind keeps nobody waiting when the lease is given back from all."""
    lease = Lease(paths, "run", "")
    lease.acquire(20.0)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lease.fileno()])
    lease.release(from_all=True)
    held = current_holder(paths)
    child.kill()
    child.wait()

    assert held is None

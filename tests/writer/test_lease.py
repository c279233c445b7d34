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
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer import tickets
from pondkeeper.writer.lease import Holder, Lease, current_holder, waiting_count

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
    """kill -9 of the holder frees the lease at once, although its JSON is still there."""
    holder = hold(paths, "victim")
    wait_held(holder)
    assert current_holder(paths) is not None
    holder.send_signal(signal.SIGKILL)
    holder.communicate()

    assert paths.lease_json.exists()
    assert current_holder(paths) is None
    lease = Lease(paths, "heir", "")
    lease.acquire(1.0)
    assert (found := current_holder(paths)) is not None
    assert found.who == "heir"
    lease.release()
    assert not paths.lease_json.exists()


def test_lease_outlives_its_taker_in_a_child_that_inherited_it(paths: DatabasePaths) -> None:
    """A program that inherited the lease holds it as long as it lives: it may have the file open."""
    lease = Lease(paths, "run", "")
    lease.acquire(1.0)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lease.fileno()])
    lease.release()

    assert current_holder(paths) is not None
    child.kill()
    child.wait()
    assert current_holder(paths) is None


def test_tickets_are_served_in_order(paths: DatabasePaths) -> None:
    """Programs get the lease in the order in which they asked for it."""
    first = Lease(paths, "first", "")
    first.acquire(1.0)
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
    lease.acquire(1.0)
    waiter = hold(paths, "killed while waiting")
    deadline = time.monotonic() + 20
    while waiting_count(paths) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waiting_count(paths) == 1  # the positive control: a living ticket counts
    waiter.send_signal(signal.SIGKILL)
    waiter.communicate()
    lease.release()

    assert tickets.waiting(paths.tickets) == []
    Lease(paths, "next", "").acquire(1.0)


def test_waiting_can_be_cancelled(paths: DatabasePaths) -> None:
    """A request that is cancelled stops waiting and gives its ticket back."""
    lease = Lease(paths, "holder", "")
    lease.acquire(1.0)
    began = time.monotonic()
    with pytest.raises(DatabaseBusy):
        Lease(paths, "cancelled", "").acquire(60, is_cancelled=lambda: True)
    lease.release()

    assert time.monotonic() - began < 10
    assert waiting_count(paths) == 0

"""Which file is next: in order, at the pace that was set, later when it failed for now, and not while its server wants a pause."""

from __future__ import annotations

import threading
import time

from pondkeeper.kinds.download.line import Line, Task
from pondkeeper.kinds.download.wanted import Wanted


def wanted(*names: str, host: str = "a") -> list[Wanted]:
    return [Wanted(f"http://{host}/{name}", name, None, []) for name in names]


def names_of(line: Line) -> list[str]:
    """Everything that the line hands out to one worker that never fails."""
    found = []
    while (task := line.take()) is not None:
        found.append(task.wanted.file)
        line.done()
    return found


def test_files_come_in_their_order_and_then_no_more() -> None:
    """One that failed for now comes again when its time has come, and nobody is sent away before."""
    line = Line(iter(wanted("1", "2", "3")))
    first = line.take()
    assert first is not None
    line.park(first, 0.2)
    began = time.monotonic()
    assert names_of(line) == ["2", "3", "1"]
    assert time.monotonic() - began >= 0.15
    assert first.attempts == 2
    assert line.take() is None


def test_a_worker_waits_for_what_another_may_give_back() -> None:
    """As long as a file is under way, it may have to be tried again by whoever is free."""
    line = Line(iter(wanted("1")))
    task = line.take()
    assert task is not None
    taken: list[Task | None] = []
    other = threading.Thread(target=lambda: taken.append(line.take()))
    other.start()
    other.join(0.1)
    assert other.is_alive()
    line.park(task, 0.0)
    other.join(20)
    assert taken == [task]
    line.done()
    assert line.take() is None


def test_a_host_that_wants_a_pause_gets_it() -> None:
    """Files of other hosts go on meanwhile."""
    line = Line(iter([*wanted("1", "2", host="tired"), *wanted("3", host="fresh")]))
    line.pause("tired", 0.3)
    began = time.monotonic()
    assert names_of(line) == ["3", "1", "2"]
    assert time.monotonic() - began >= 0.25


def test_requests_keep_the_pace() -> None:
    """However many workers there are: eleven requests at fifty a second take a fifth of a second."""
    line = Line(iter(wanted(*map(str, range(11)))), requests_per_s=50.0)
    began = time.monotonic()
    workers = [threading.Thread(target=names_of, args=[line]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert time.monotonic() - began >= 0.19


def test_a_closed_line_hands_out_nothing() -> None:
    """Also to those who wait for a file that failed for now, or for their place in the pace."""
    line = Line(iter(wanted("1", "2")), requests_per_s=0.01)
    task = line.take()
    assert task is not None
    taken: list[Task | None] = []
    waiting = threading.Thread(target=lambda: taken.append(line.take()))
    waiting.start()
    time.sleep(0.05)
    line.close()
    waiting.join(20)
    assert taken == [None]

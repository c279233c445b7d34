"""A function over many items in threads: all of them, as they get done, and an end in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pondkeeper.errors import RunCancelled
from pondkeeper.kinds.mapping import map_in_threads


def test_every_item_gets_its_value_as_soon_as_it_is_done() -> None:
    """Many at once, none twice, whoever is slow."""
    together = threading.Barrier(4, timeout=30)

    def double(number: int) -> int:
        if number < 4:
            together.wait()
        return 2 * number

    found = {each.item: each.value for each in map_in_threads(double, range(100), workers=4, stopping=threading.Event())}
    assert found == {number: 2 * number for number in range(100)}


def test_a_failure_belongs_to_its_item() -> None:
    """The others go on; who looks decides, and it is known whether anybody has looked."""

    def refuse_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    found = list(map_in_threads(refuse_two, range(5), workers=2, stopping=threading.Event()))
    assert [each.item for each in found if not each.was_seen] == [2]
    (failed,) = [each for each in found if each.error is not None]
    assert (len(found), failed.item, failed.was_seen) == (5, 2, True)
    with pytest.raises(ValueError, match="two"):
        _ = failed.value


def test_items_are_taken_as_they_are_needed() -> None:
    """A source without an end can be left; what it raises is raised."""
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    for each in map_in_threads(lambda number: number, numbers(), workers=2, stopping=threading.Event()):
        if each.value >= 5:
            break
    assert taken < 50

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        list(map_in_threads(lambda number: number, broken(), workers=2, stopping=threading.Event()))


def test_when_the_run_is_to_end_what_is_under_way_is_given_and_nothing_begun() -> None:
    """And what hangs is not waited for."""
    stopping, hanging = threading.Event(), threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            hanging.wait(120)
        return number

    given: list[int] = []
    began = time.monotonic()

    def take() -> None:
        for each in map_in_threads(work, range(10_000), workers=2, stopping=stopping):
            given.append(each.value)
            if len(given) == 3:
                stopping.set()

    with pytest.raises(RunCancelled):
        take()
    assert time.monotonic() - began < 60
    hanging.set()
    assert len(begun) < 1000
    assert set(given) >= set(begun) - {1, *begun[-2:]}

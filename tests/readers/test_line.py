"""The line of queries that wait: everybody's turn comes, whatever one caller does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.errors import KeeperStopping, QueueFull
from pondkeeper.readers import line as line_module
from pondkeeper.readers.line import Line


def stand(line: Line, caller: str, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    waiter: asyncio.Future[Any] = loop.create_future()
    line.join(caller, waiter)
    return waiter


def turns(line: Line, count: int) -> list[str]:
    """Who has the next turns, when each reader is given back before the next is free, and many are."""
    return [turn[0] for _ in range(count) if (turn := line.next(free=9)) is not None]


async def test_callers_take_turns_however_many_of_one_wait() -> None:
    """The third caller's one query is third, not behind the hundred of the first."""
    loop, line = asyncio.get_running_loop(), Line(1000, 4)
    for _ in range(100):
        stand(line, "flood", loop)
    for caller in ("b", "c"):
        stand(line, caller, loop)
    assert turns(line, 5) == ["flood", "b", "c", "flood", "flood"]
    assert len(line) == 97


async def test_who_has_fewer_readers_is_next() -> None:
    """A caller with readers waits until those without have had theirs."""
    loop, line = asyncio.get_running_loop(), Line(1000, 4)
    line.takes("flood")
    for caller in ("flood", "flood", "quiet"):
        stand(line, caller, loop)
    assert turns(line, 3) == ["quiet", "flood", "flood"]
    line.gives_back("flood")
    stand(line, "flood", loop)
    stand(line, "quiet", loop)
    assert turns(line, 2) == ["flood", "quiet"]


async def test_a_full_line_is_the_loss_of_who_filled_it() -> None:
    """The newest of the flood is pushed out for somebody else, and the flood itself is refused."""
    loop, line = asyncio.get_running_loop(), Line(4, 4)
    flood = [stand(line, "flood", loop) for _ in range(4)]
    with pytest.raises(QueueFull):
        stand(line, "flood", loop)
    quiet = stand(line, "quiet", loop)
    assert isinstance(flood[-1].exception(), QueueFull)
    assert len(line) == 4
    stand(line, "other", loop)
    assert isinstance(flood[-2].exception(), QueueFull)
    with pytest.raises(QueueFull):  # nobody has more than one more than him
        stand(line, "quiet", loop)
    assert not quiet.done()
    assert turns(line, 4) == ["flood", "quiet", "other", "flood"]


async def test_a_line_without_places_refuses_everybody() -> None:
    with pytest.raises(QueueFull):
        stand(Line(0, 4), "a", asyncio.get_running_loop())


def test_for_each_other_who_asks_one_reader_is_kept_free_up_to_half_of_them() -> None:
    """Of eight readers a flood leaves one free beside one other, and four beside many."""
    line = Line(10, 8)
    line.asks("flood")
    line.takes("flood")
    kept = []
    for other in range(7):
        kept.append(next(free for free in range(9) if line.may_take("flood", free + 1)))
        line.asks(f"quiet {other}")
    assert kept == [0, 1, 2, 3, 4, 4, 4]
    assert all(Line(10, 1).may_take(caller, 1) for caller in ("flood", "quiet"))


def test_greedy_is_who_has_more_than_one_while_others_ask() -> None:
    """Alone nobody is, and nobody with one query at a time."""
    line = Line(10, 4)
    line.asks("flood")
    line.takes("flood")
    assert not line.is_greedy("flood")
    line.asks("quiet")
    assert line.is_greedy("flood")
    assert not line.is_greedy("quiet")
    line.gives_back("flood")
    assert not line.is_greedy("flood")


async def test_the_last_free_reader_is_kept_for_others_while_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone a caller may have all readers; beside others all but one, until they have not asked for a while."""
    loop, line = asyncio.get_running_loop(), Line(10, 2)
    line.asks("flood")
    line.takes("flood")
    assert line.may_take("flood", 1)
    line.asks("quiet")
    line.asks("flood")
    assert not line.may_take("flood", 1)
    assert line.may_take("quiet", 1)
    stand(line, "flood", loop)
    assert line.next(free=1) is None
    stand(line, "quiet", loop)
    assert turns(line, 1) == ["quiet"]
    monkeypatch.setattr(line_module, "OTHERS_LATELY_S", 0.0)
    await asyncio.sleep(0.001)
    line.asks("flood")
    turn = line.next(free=1)
    assert turn is not None
    assert turn[0] == "flood"


async def test_those_who_left_have_no_turn_and_a_closed_line_tells_everybody() -> None:
    loop, line = asyncio.get_running_loop(), Line(10, 2)
    gone, cancelled, last = (stand(line, "a", loop) for _ in range(3))
    line.leave("a", gone)
    line.leave("a", gone)
    cancelled.cancel()
    assert line.next(free=9) == ("a", last)
    assert len(line) == 0
    left = stand(line, "b", loop)
    line.close()
    assert isinstance(left.exception(), KeeperStopping)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=60), st.integers(1, 8))
def test_no_query_is_lost_or_has_two_turns(acts: list[tuple[str, int]], places: int) -> None:
    """Whatever happens in whatever order: each that stood in line is served, pushed out, gone, or still waits."""
    loop = asyncio.new_event_loop()
    try:
        line, waiting, served = Line(places, 4), [], []
        for caller, act in acts:
            if act == 0 and (turn := line.next(free=9)) is not None:
                served.append(turn[1])
            elif act == 1 and waiting:
                line.leave(*waiting[0])
                waiting[0][1].cancel()
            elif act > 1:
                waiter: asyncio.Future[Any] = loop.create_future()
                try:
                    line.join(caller, waiter)
                except QueueFull:
                    continue
                waiting.append((caller, waiter))
            waiting = [(name, one) for name, one in waiting if one not in served and not one.done()]
            assert len(line) == len(waiting) <= places
        assert len(set(served)) == len(served)
        left = [line.next(free=9) for _ in waiting]
        assert {turn[1] for turn in left if turn is not None} == {waiter for _, waiter in waiting}
    finally:
        loop.close()

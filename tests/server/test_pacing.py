"""Refusals at a pace: one is told at once, thousands come one by one, and nobody waits past his own deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pondkeeper.access.authorize import LOCAL_KEY
from pondkeeper.errors import Forbidden, QueueFull, RateLimited
from pondkeeper.server.pacing import MOST_HELD_S, REFUSALS_PER_S, Pace
from pondkeeper.server.scopes import CALLER, PATIENCE


def test_a_caller_who_comes_now_and_then_is_told_at_once() -> None:
    pace = Pace()
    assert [pace.held_s("a", now) for now in (1.0, 1.1, 2.0)] == [0.0, 0.0, 0.0]


def test_who_floods_is_held_longer_each_time_and_nobody_else_is() -> None:
    """A thousand at once come at the pace of so many a second; none is held for longer than the most."""
    pace = Pace()
    held = [pace.held_s("flood", 1.0) for _ in range(5000)]
    assert held[:3] == pytest.approx([0.0, 1 / REFUSALS_PER_S, 2 / REFUSALS_PER_S])
    assert held == sorted(held)
    assert max(held) == pytest.approx(MOST_HELD_S)
    assert pace.held_s("quiet", 1.0) == 0.0
    assert pace.held_s("flood", 1.0 + 2 * MOST_HELD_S) == 0.0


async def slept(pace: Pace, error: Any, scope: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> float:
    """How long the refusal would be held."""
    total = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal total
        total += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await pace.hold(error, scope)
    return total


async def test_only_refusals_that_say_when_to_come_back_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an error of the request itself; and not past the deadline of the request."""
    pace, scope = Pace(), {CALLER: LOCAL_KEY}
    for _ in range(5000):
        await slept(pace, RateLimited("no", retry_after_s=1), scope, monkeypatch)
    assert await slept(pace, QueueFull("no", retry_after_s=1), scope, monkeypatch) > MOST_HELD_S / 2
    assert await slept(pace, QueueFull("no", retry_after_s=1), {**scope, PATIENCE: 0.5}, monkeypatch) == 0.5
    assert await slept(pace, Forbidden("no"), scope, monkeypatch) == 0.0
    assert await slept(pace, QueueFull("no"), scope, monkeypatch) == 0.0
    assert await slept(pace, RateLimited("no", retry_after_s=1), {"client": ("127.0.0.1", 1)}, monkeypatch) == 0.0


async def test_callers_that_are_long_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    from pondkeeper.server import pacing

    monkeypatch.setattr(pacing, "MAX_KNOWN", 10)
    pace = Pace()
    for number in range(100):
        pace.held_s(str(number), float(number))
    assert len(pace._due_at) == 10

"""A history in a control.db of its own, with a clock that stands until it is set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pondkeeper.jobs.history import History


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def history(tmp_path: Path, clock: HandClock) -> AsyncIterator[History]:
    found = await History.open(tmp_path / "home" / "control.db", keep_s=86_400.0, now=clock)
    yield found
    await found.close()

"""When a process tree is free, told from looks at its CPU time."""

from __future__ import annotations

import pytest

from benchmarks.processes import ProcessStat
from benchmarks.runaway import Look, free_at

KEEPER, READER, REFILL = 1, 2, 3


def _looks(busy_until: float, gone_at: float) -> list[Look]:
    """Looks every 5 ms for 3 s: a reader computes until then, and its process is there until then."""
    looks = []
    for number in range(600):
        at = number * 0.005
        cpu = {KEEPER: int(at) * 0.01}  # a tick a second: an idle keeper
        if at < gone_at:
            cpu[READER] = int(min(at, busy_until) * 100) / 100
        else:
            cpu[REFILL] = 0.0
        looks.append(Look(at, {pid: ProcessStat(pid, KEEPER, "S", used) for pid, used in cpu.items()}))
    return looks


@pytest.mark.parametrize("end", [1.0, 1.25, 1.4])
def test_a_killed_process_counts_until_its_death(end: float) -> None:
    """CPU time that vanishes with its process was used until then."""
    assert free_at(_looks(busy_until=9.0, gone_at=end)) == pytest.approx(end, abs=0.02)


@pytest.mark.parametrize("end", [1.0, 1.25, 1.4])
def test_an_interrupted_process_counts_until_it_stops(end: float) -> None:
    """A reader that goes idle is free when it stopped computing, though it lives on."""
    assert free_at(_looks(busy_until=end, gone_at=9.0)) == pytest.approx(end, abs=0.02)


def test_an_idle_tree_is_free_from_the_first_look() -> None:
    """A tick now and then is not busy."""
    assert free_at(_looks(busy_until=0.0, gone_at=9.0)) == 0.0

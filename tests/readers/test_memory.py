"""Memory bombs end in a clear error, in the reader that ran them; the keeper does not even notice."""

from __future__ import annotations

import pytest

from pondkeeper.client.client import Client
from tests.support.asking import ask, code_of
from tests.support.keeper import KeeperProcess
from tests.support.processes import rss_bytes

pytestmark = pytest.mark.fault
MEMORY = "256MB"
MIB = 1 << 20
CEILING_BYTES = 256 * MIB * 3 // 2 + (768 + 512 + 128) * MIB  # where the watchdog kills, and a little for its haste

BOMBS = {
    "repeat per row": "SELECT max(length(repeat('abc', 300000000 + i::INTEGER))) FROM range(8) AS r(i)",
    "one huge repeat": "SELECT length(repeat(repeat('x', 1000), 3000000 + (i % 2)::INTEGER)) FROM range(4) AS r(i)",
    "range of 1e9": "SELECT len(range(n)) FROM range(1000000000, 1000000001) AS r(n)",
    "a list of everything": "SELECT len(list(i)) FROM range(1000000000) AS r(i)",
    "one string of everything": "SELECT length(string_agg(repeat('y', 1000), ',')) FROM range(5000000)",
    "nested lists": "SELECT len(flatten(list_transform(range(n), lambda x: range(20000)))) FROM range(40000, 40001) AS r(n)",
    "huge replacement": "SELECT length(regexp_replace(repeat('a', n::INTEGER), 'a', repeat('b', 400), 'g')) FROM range(30000000, 30000001) AS r(n)",
    "a hash table of everything": "SELECT count(*) FROM (SELECT i, list(i) FROM range(200000000) AS r(i) GROUP BY i)",
}


SPILLS = "SELECT count(*) FROM (SELECT DISTINCT md5(i::VARCHAR) FROM range(2000000) AS r(i))"


@pytest.mark.parametrize("name", BOMBS)
def test_memory_bomb_ends_in_a_clear_error(pond: KeeperProcess, client: Client, name: str) -> None:
    """It ends by a limit, its reader never grows past the ceiling, the keeper's memory does not move; others spill on."""
    before = rss_bytes(pond.pid)
    asked = ask(client, BOMBS[name], timeout_s=3)
    highest = 0
    while not asked.is_done():
        sizes = []
        for pid in pond.children("reader"):
            try:
                sizes.append(rss_bytes(pid))
            except OSError:
                continue
        highest = max([highest, *sizes])
    outcome = asked.outcome()

    assert code_of(outcome) in ("out_of_memory", "query_timed_out")
    assert outcome.remedy
    assert highest < CEILING_BYTES
    assert rss_bytes(pond.pid) - before < 32 * MIB
    assert client.query(SPILLS, timeout_s=55).scalar() == 2_000_000


def test_what_does_not_fit_into_memory_and_can_be_spilled_is_answered(pond: KeeperProcess) -> None:
    """The positive control of the walls: what fits, passes, also where it has to spill."""
    assert pond.client().query(SPILLS, timeout_s=55).scalar() == 2_000_000

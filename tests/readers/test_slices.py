"""A reader in a long query lets others go first, and takes turns again when the query is over."""

from __future__ import annotations

import threading

import pytest

from pondkeeper.client.client import Client
from pondkeeper.workers import slices
from tests.support.asking import ask, code_of, running
from tests.support.keeper import KeeperProcess, wait_until

LONG = "SELECT count(*) FROM range(100_000_000) AS a(i), range(100_000) AS b(j) WHERE i % 7 = j % 11"


def _lengths(keeper: KeeperProcess) -> list[float | None]:
    return sorted(length for pid in keeper.children("reader") if (length := slices.slice_s(pid)) is not None)


@pytest.mark.skipif(not slices.slice_s(threading.get_native_id()), reason="this kernel does not say slices")
def test_only_a_reader_in_a_long_query_has_long_slices(pond: KeeperProcess, client: Client) -> None:
    """One of the readers has long slices while the query runs; before and after all have short ones."""
    wait_until(lambda: set(_lengths(pond)) == {slices.SHORT_S}, what="short slices everywhere")
    asked = ask(client, LONG, timeout_s=55)
    wait_until(lambda: _lengths(pond).count(slices.LONG_S) == 1, what="long slices of one reader")
    client.cancel(running(client, LONG)["id"])
    assert code_of(asked.outcome()) == "query_cancelled"
    wait_until(lambda: set(_lengths(pond)) == {slices.SHORT_S}, what="short slices again")

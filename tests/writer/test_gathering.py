"""When the queue waits a moment for the rest of a crowd, and that nobody else ever waits."""

from __future__ import annotations

from pondkeeper.writer.batch_size import LEAST as FULL
from pondkeeper.writer.gathering import LEAST, MOST_S, Gathering
from tests.support.asking import Asked
from tests.support.keeper import KeeperProcess

CLIENTS, EACH = 8, 60


def learned(count: int, waiting: int, took_s: float = 1.0) -> Gathering:
    gathering = Gathering()
    gathering.learn(count, waiting, most=FULL, took_s=took_s, now=100.0)
    return gathering


def test_a_crowd_is_waited_for_and_nobody_else() -> None:
    """From so many on that share a statement, and no more than fit into a batch."""
    assert learned(1, 0).enough == learned(1, LEAST - 2).enough == 1
    assert learned(1, LEAST - 1).enough == learned(LEAST, 0).enough == LEAST
    assert learned(7, 1).enough == 8
    assert learned(FULL, FULL).enough == FULL


def test_no_longer_than_the_last_batch_took_and_never_long() -> None:
    """A quick batch is worth a short wait only."""
    assert learned(8, 0, took_s=MOST_S / 4).until == 100.0 + MOST_S / 4
    assert learned(8, 0, took_s=10.0).until == 100.0 + MOST_S


def test_clients_that_write_at_the_same_time_are_all_answered(pond: KeeperProcess) -> None:
    """Also the last of the crowd, for whom nobody else comes: the wait ends by itself."""
    first = pond.client()
    first.execute("CREATE TABLE crowd (client INTEGER, n INTEGER)")

    def write(client: int) -> None:
        with pond.client() as mine:
            for n in range(EACH if client else EACH // 4):
                mine.execute("INSERT INTO crowd VALUES (?, ?)", [client, n])

    for asked in [Asked(lambda client=client: write(client)) for client in range(CLIENTS)]:  # type: ignore[misc]  # mypy infers no lambda with a default
        assert asked.outcome(60) is None
    version = first.execute("INSERT INTO crowd VALUES (-1, 0)").version
    found = first.query("SELECT count(*), count(DISTINCT (client, n)) FROM crowd", at_least=version).rows
    whole = (CLIENTS - 1) * EACH + EACH // 4 + 1
    assert [tuple(row) for row in found] == [(whole, whole)]

"""A program that takes the lease and writes the file itself: in turn by `pondkeeper.write`, and as one under `pondkeeper run`.

    python -m campaigns.holder FILE HOME    orders: {"first": n, "count": m, "by_library": true or false}

It says `leased`, then the number of each transfer that DuckDB has acknowledged.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campaigns.ledger import Told, write_of
from campaigns.programs import Order, Programs, serve, tell

HOLDER = 100  # the number of the holder among the clients
LEASE_S = 60.0
REASON = "writes transfers until it is killed"


class Holders:
    """Holders of the lease, one after the other; what they were told by DuckDB stands in `told`."""

    def __init__(self, file: Path, home: Path) -> None:
        self.told = Told()
        self._lines: queue.Queue[str] = queue.Queue()
        self._lives = 0
        self._programs = Programs("campaigns.holder", [str(file), str(home)], self._lines.put)

    def begin(self, count: int) -> int:
        """Let a holder begin that wants to commit `count` writes; its pid."""
        first = self.told.sent + 1
        self.told.sent += count
        self._lives += 1
        return self._programs.begin({"first": first, "count": count, "by_library": self._lives % 2 == 0})

    def wait_leased(self) -> None:
        """Wait until the holder has the lease."""
        word = self._lines.get(timeout=LEASE_S)
        assert word == "leased", word

    def finish(self) -> None:
        """Take in what the holder said until its end: a number that it did not say may have been committed or not."""
        while (line := self._lines.get(timeout=LEASE_S)) != "gone":
            if line.isdigit():
                self.told.committed.append(int(line))
        last = self.told.committed[-1] if self.told.committed else 0
        self.told.unknown |= set(range(last + 1, self.told.sent + 1))

    def close(self) -> None:
        """End the process."""
        self._programs.close()


def main(file: Path, home: Path) -> None:
    """Fork a holder for each order."""
    import pondkeeper.engine.preloading  # noqa: F401  Why: loads the engine without a thread, so that we may fork.

    serve(lambda order: _hold(file, home, order))


def _hold(file: Path, home: Path, order: Order) -> None:
    import pondkeeper

    numbers = range(order["first"], order["first"] + order["count"])
    if order["by_library"]:
        with pondkeeper.write(file, home=home, wait_s=LEASE_S, reason=REASON) as connection:
            tell("leased")
            _commit_all(connection, numbers)
        return
    with _leased(file, home) as connection:
        _commit_all(connection, numbers)


@contextmanager
def _leased(file: Path, home: Path) -> Iterator[Any]:
    """The lease alone, and DuckDB as anybody would open it."""
    import duckdb

    from pondkeeper.files.paths import Home
    from pondkeeper.writer.lease import Lease

    lease = Lease(Home(home).database(file), who="campaign", why=REASON)
    lease.acquire(LEASE_S)
    tell("leased")
    with duckdb.connect(str(file)) as connection:
        yield connection
    lease.release()


def _commit_all(connection: Any, numbers: range) -> None:
    for n in numbers:
        connection.execute("BEGIN")
        for sql, parameters in write_of(HOLDER, n):
            connection.execute(sql, parameters)
        connection.execute("COMMIT")
        tell(str(n))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

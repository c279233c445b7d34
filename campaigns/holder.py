"""A program that takes the lease and writes the file itself, as a script under `pondkeeper run` does.

    python -m campaigns.holder FILE HOME    one JSON order per line on stdin: {"first": n, "count": m, "client": c}

Each order forks a child that says on stdout what it does: `ready PID`, `leased`, then the number of each transfer that DuckDB
has acknowledged, then `over`. The parent has loaded the engine already, so that a holder costs a fork and not a start.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import IO

from campaigns.ledger import Told, write_of
from tests.support.keeper import program_environment

HOLDER = 100  # the number of the holder among the clients
LEASE_S = 60.0


class Holders:
    """Holders of the lease, one after the other; what they were told by DuckDB stands in `told`."""

    def __init__(self, file: Path, home: Path) -> None:
        self.told = Told()
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaigns.holder", str(file), str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=program_environment(),
        )
        assert self._process.stdout is not None
        self._listening = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listening.start()

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def begin(self, count: int) -> int:
        """Let a holder begin that wants to commit `count` transfers; its pid."""
        assert self._process.stdin is not None
        first = self.told.sent + 1
        self.told.sent += count
        self._process.stdin.write(json.dumps({"client": HOLDER, "first": first, "count": count}) + "\n")
        self._process.stdin.flush()
        word, pid = self._next().split()
        assert word == "ready", word
        return int(pid)

    def _next(self) -> str:
        line = self._lines.get(timeout=LEASE_S)
        if line is None:
            raise RuntimeError("the holders' process has died")
        return line

    def wait_leased(self) -> None:
        """Wait until the holder has the lease."""
        word = self._next()
        assert word == "leased", word

    def finish(self) -> None:
        """Take in what the holder said until its end: a number that it did not say may have been committed or not."""
        while (line := self._next()) != "gone":
            if line.isdigit():
                self.told.committed.append(int(line))
        last = self.told.committed[-1] if self.told.committed else 0
        self.told.unknown |= set(range(last + 1, self.told.sent + 1))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._listening.join(10)
        self._process.stdout.close()


def main(file: Path, home: Path) -> None:
    """Fork a holder for each order, and say when it is gone."""
    import pondkeeper.engine.preloading  # noqa: F401  Why: loads the engine without a thread, so that we may fork.

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                _hold(file, home, order["client"], range(order["first"], order["first"] + order["count"]))
            except BaseException:  # noqa: BLE001  Why: a forked child must never go on as its parent.
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        _say("gone")


def _hold(file: Path, home: Path, client: int, numbers: range) -> None:
    import duckdb

    from pondkeeper.files.paths import Home
    from pondkeeper.writer.lease import Lease

    _say(f"ready {os.getpid()}")
    lease = Lease(Home(home).database(file), who="campaign", why="writes transfers until it is killed")
    lease.acquire(LEASE_S)
    _say("leased")
    with duckdb.connect(str(file)) as connection:
        for n in numbers:
            connection.begin()
            for sql, parameters in write_of(client, n):
                connection.execute(sql, parameters)
            connection.commit()
            _say(str(n))
    lease.release()
    _say("over")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

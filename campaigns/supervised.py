"""A program under `pondkeeper run` that writes the file itself; who is killed is its supervisor, and the program must go on.

    python -m campaigns.supervised FIRST COUNT    commits so many transfers to $PONDKEEPER_DATABASE, and says each
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb

from campaigns.holder import HOLDER
from campaigns.ledger import Told, write_of
from campaigns.programs import tell
from tests.support.keeper import command_line, program_environment

WAIT = "60s"


class SupervisedProgram:
    """One `pondkeeper run` with its program; what that was told by DuckDB is noted in `told`."""

    def __init__(self, file: Path, home: Path, told: Told, count: int) -> None:
        self._told = told
        self._first, self._count = told.sent + 1, count
        told.sent += count
        program = [sys.executable, "-m", "campaigns.supervised", str(self._first), str(count)]
        self._process = subprocess.Popen(
            [*command_line("run", "--home", str(home), "-d", str(file), "--wait", WAIT, "--no-snapshot"), "--", *program],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=program_environment(),
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout
        self._has_begun = False

    @property
    def pid(self) -> int:
        """The supervisor."""
        return self._process.pid

    def wait_begun(self) -> None:
        """Wait until the program has the file open."""
        self._has_begun = self._said.readline() == "leased\n"

    def finish(self) -> list[str]:
        """Take in what the program says until its own end, whatever became of its supervisor: what is wrong with it."""
        lines = self._said.read().split()
        self._said.close()
        self._process.wait()
        self._has_begun = self._has_begun or "leased" in lines
        numbers = [int(line) for line in lines if line.isdigit()]
        self._told.committed += numbers
        last = numbers[-1] if numbers else self._first - 1
        self._told.unknown |= set(range(last + 1, self._told.sent + 1))
        if self._has_begun and len(numbers) < self._count:
            return [f"a program ended after {len(numbers)} of {self._count} commits when `pondkeeper run` was killed"]
        return []


def main(first: int, count: int) -> None:
    """Commit so many transfers, as any program would."""
    with duckdb.connect(os.environ["PONDKEEPER_DATABASE"]) as connection:
        tell("leased")
        for n in range(first, first + count):
            connection.execute("BEGIN")
            for sql, parameters in write_of(HOLDER, n):
                connection.execute(sql, parameters)
            connection.execute("COMMIT")
            tell(str(n))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

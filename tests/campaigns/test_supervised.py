"""The victim `pondkeeper run`: its program goes on when it is killed, and the campaign would see it if it did not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import duckdb
import pytest

from campaigns.ledger import SCHEMA, Told
from campaigns.supervised import SupervisedProgram
from pondkeeper.files.paths import Home
from pondkeeper.writer.lease import current_holder
from tests.support.keeper import wait_until

COUNT = 20
MORE_THAN_IT_LIVES_FOR = 5000


def begun(folder: Path, told: Told, count: int) -> SupervisedProgram:
    file = folder / "pond.duckdb"
    with duckdb.connect(str(file)) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
    program = SupervisedProgram(file, folder / ".pondkeeper", told, count)
    program.wait_begun()
    return program


@pytest.mark.fault
@pytest.mark.parametrize("who", ["the supervisor", "its program too"])
def test_the_program_outlives_its_supervisor(tmp_path: Path, who: str) -> None:
    """It commits all that it wanted, and the lease is free when it has ended; a program that died with it is a finding."""
    told = Told()
    program = begun(tmp_path, told, COUNT if who == "the supervisor" else MORE_THAN_IT_LIVES_FOR)
    if who == "its program too":
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
    os.kill(program.pid, signal.SIGKILL)

    wrong = program.finish()

    if who == "its program too":
        assert len(wrong) == 1, "the positive control"
        return
    assert wrong == []
    assert told.committed == list(range(1, COUNT + 1))
    paths = Home(tmp_path / ".pondkeeper").database(tmp_path / "pond.duckdb")
    wait_until(lambda: current_holder(paths) is None, what="a free lease")

"""A plain script that tries `duckdb.connect` again and again gets in, however busy the keeper's writers are."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.keeper import KeeperProcess, program_environment

SCRIPT = """
import duckdb, sys, time
give_up_at = time.monotonic() + float(sys.argv[2])
while True:
    try:
        connection = duckdb.connect(sys.argv[1])
        break
    except duckdb.IOException:
        if time.monotonic() > give_up_at:
            raise
        time.sleep(0.05)
connection.execute("INSERT INTO t VALUES ('script', 1)")
connection.close()
"""


@contextmanager
def steady_writer(keeper: KeeperProcess, pause_s: float) -> Iterator[list[int]]:
    """An application that never rests for the second after which the writer gives the file back by itself."""
    ended = threading.Event()
    written: list[int] = []

    def write() -> None:
        client = keeper.client()
        while not ended.wait(pause_s):
            client.execute("INSERT INTO t VALUES ('application', ?)", [len(written)])
            written.append(len(written))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("pause_s", [0.2, 0.001])
def test_a_script_gets_in_beside_a_steady_writer(pond: KeeperProcess, pause_s: float) -> None:
    """With a write every 0.2 s, and with one after another, a script that knocks is let in, and no write fails."""
    keeper, client = pond, pond.client()
    client.execute("CREATE OR REPLACE TABLE t (who VARCHAR, number INTEGER)")
    with steady_writer(keeper, pause_s) as written:
        for _ in range(3):
            command = [sys.executable, "-c", SCRIPT, str(keeper.target), "40"]
            script = subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment())
            assert script.returncode == 0, script.stderr
    version = keeper.local_client().take_snapshot()["version"]
    answer = client.query("SELECT who, count(*) FROM t GROUP BY who", at_least=version)
    assert dict(answer.rows) == {"script": 3, "application": len(written)}

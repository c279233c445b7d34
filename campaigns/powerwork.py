"""The work whose system calls are recorded: a real keeper, and one client that says before and after each step where it is.

    python -m campaigns.powerwork ROOT MARKERS STEPS

The steps are JSON: {"sql": [...]} is one transaction, {"look": true} waits until it is published, {"restore": N} makes
the database what it was after step N, {"backup": true} archives it. What is said is `begin N` and `done N`, one line each.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from pondkeeper.client import Client
from tests.support.keeper import KeeperProcess

TIMEOUT_S = 120.0
LOOK = """
SELECT (SELECT count(*) FROM a)::BIGINT, (SELECT coalesce(sum(i), 0) FROM a)::VARCHAR, (SELECT bit_xor(hash(i, s)) FROM a)::VARCHAR,
       (SELECT count(*) FROM b)::BIGINT, (SELECT coalesce(sum(i * j), 0) FROM b)::VARCHAR
"""

Step = dict[str, Any]
KEEPS_THE_NEWEST = {f"PONDKEEPER_ARCHIVE_KEEP_{which}_S": "0" for which in ("ALL", "HOURLY", "DAILY")}


def draw(chance: random.Random, count: int) -> list[Step]:
    """A plan: create, insert, load in bulk, update, delete, index; some of it published before the next, some not."""
    steps: list[Step] = [
        {"sql": ["CREATE TABLE a (i BIGINT, s VARCHAR)", "CREATE TABLE b (i BIGINT PRIMARY KEY, j BIGINT)"]},
        {"sql": ["CREATE INDEX by_i ON a (i)"], "look": True},
    ]
    steps += [{"sql": _statements(chance, number), "look": chance.random() < 0.5} for number in range(count)]
    middle = len(steps) * 2 // 3
    steps[middle:middle] = [{"backup": True}, {"sql": ["DELETE FROM a WHERE i % 3 = 0"], "look": True}, {"restore": middle}]
    steps[middle + 5 : middle + 5] = [{"backup": True}, {"prune": True}]
    return steps


def _statements(chance: random.Random, number: int) -> list[str]:
    kind = chance.choices(("insert", "many", "bulk", "update", "delete", "both"), (6, 3, 1, 3, 1, 2))[0]
    first = number * 1_000_000
    return {
        "insert": [f"INSERT INTO a VALUES ({first}, 'row {number}')"],
        "many": [f"INSERT INTO a SELECT {first} + range, md5(range::VARCHAR) FROM range({chance.randint(2, 3_000)})"],
        "bulk": [f"INSERT INTO a SELECT {first} + range, 'bulk' FROM range({chance.randint(122_880, 130_000)})"],
        "update": [f"UPDATE a SET s = s || '{number}' WHERE hash(i) % {chance.randint(2, 50)} = 0"],
        "delete": [f"DELETE FROM a WHERE hash(i) % {chance.randint(5, 50)} = 1"],
        "both": [f"INSERT INTO b VALUES ({number}, 1)", "UPDATE b SET j = j + 1"],
    }[kind]


def main(root: Path, markers: Path, steps: list[Step]) -> None:
    """Do the steps, each after the one before it was acknowledged."""
    marks = os.open(markers, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    versions: dict[int, int] = {}
    with KeeperProcess(root / "pond.duckdb", environment=KEEPS_THE_NEWEST) as keeper:
        client = keeper.local_client(retry_for_s=TIMEOUT_S)
        for number, step in enumerate(steps):
            os.write(marks, f"begin {number}\n".encode())
            _do(client, number, step, versions)
            if "backup" in step:
                os.write(marks, f"archived {versions[number]}\n".encode())
            os.write(marks, f"done {number}\n".encode())
            if step.get("look"):
                client.query("SELECT 1", at_least=versions[number], timeout_s=TIMEOUT_S)
    os.close(marks)


def _do(client: Client, number: int, step: Step, versions: dict[int, int]) -> None:
    if "sql" in step:
        versions[number] = client.execute(step["sql"], timeout_s=TIMEOUT_S).version
    elif "backup" in step:
        versions[number] = client.backups.now()["version"]
    elif "prune" in step:
        client.backups.prune()
    else:
        client.restore(version=versions[step["restore"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))

"""A recorded history of 100,000 operations of 16 clients, with the writer killed now and then, judged by the checker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb

from campaigns.checker import check
from campaigns.forging import FORGERIES
from campaigns.historian import HOT_KEYS, KEYS
from campaigns.operations import Final, History, Operation, read_operations
from campaigns.running import Options, Stage
from campaigns.striker import Striker, writer_of
from tests.support.keeper import KeeperProcess, program_environment

CLIENTS, PROCESSES = 16, 4
LONG_OPERATIONS, SHORT_OPERATIONS = 100_000, 2_400
LONG_KILL_EVERY_S, SHORT_KILL_EVERY_S = 5.0, 1.0
SCHEMA = ["CREATE TABLE log (client INTEGER, n INTEGER)", "CREATE TABLE rows_by_key (k INTEGER PRIMARY KEY, v BIGINT)"]


def play(stage: Stage) -> None:
    """Record, judge, and let the checker prove that it can see: each kind of fault is forged into the same history."""
    folder = stage.room("history")
    began = time.monotonic()
    history = _record(stage, folder)
    recorded_s = time.monotonic() - began
    found = check(history)
    if found or stage.options.keep:
        history.write(folder / "history.jsonl")
    stage.violated(found)
    _sum_up(stage, history, recorded_s, time.monotonic() - began - recorded_s)
    for name, forge in FORGERIES.items():
        forged = forge(history)
        news = [text for text in check(forged) if text not in found] if forged else []
        stage.control(f"forged: {name}", news, applies=forged is not None)


def _record(stage: Stage, folder: Path) -> History:
    options = stage.options
    operations = options.operations or (SHORT_OPERATIONS if options.short else LONG_OPERATIONS)
    kill_every_s = SHORT_KILL_EVERY_S if options.short else LONG_KILL_EVERY_S
    with KeeperProcess(folder / "pond.duckdb") as keeper:
        keeper.client().execute(SCHEMA)
        outs = [folder / f"clients-{number}.jsonl" for number in range(PROCESSES)]
        processes = [
            _begin(keeper, options, operations // CLIENTS, number, out) for number, out in enumerate(outs)
        ]
        try:
            faults = _kill_now_and_then(stage, keeper, processes, kill_every_s)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if broken := [process.returncode for process in processes if process.returncode]:
            raise RuntimeError(f"clients ended with {broken}")
        if keeper.stop() != 0:
            stage.violated(["the keeper did not stop in order"])
    recorded = [operation for out in outs for operation in read_operations(out.read_text().splitlines())]
    return History(recorded, _final(folder / "pond.duckdb"), faults)


def _begin(keeper: KeeperProcess, options: Options, operations: int, number: int, out: Path) -> subprocess.Popen[bytes]:
    config = {
        "url": keeper.url,
        "key": keeper.key,
        "clients": list(range(number, CLIENTS, PROCESSES)),
        "operations": operations,
        "seed": options.seed,
        "budget_s": options.budget_s,
        "out": str(out),
    }
    command = [sys.executable, "-m", "campaigns.historian", json.dumps(config)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=program_environment())


def _kill_now_and_then(
    stage: Stage, keeper: KeeperProcess, processes: list[subprocess.Popen[bytes]], every_s: float
) -> list[float]:
    """kill -9 of the writer until the clients are done; the moments."""
    chance, faults, striker = stage.chance, [], Striker()
    next_at = time.monotonic() + every_s
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(0.05)
            if time.monotonic() < next_at:
                continue
            next_at = time.monotonic() + every_s
            pid = writer_of(keeper.pid)
            if pid is not None:
                places = {"file": str(keeper.target)}
                if striker.strike("commit", pid, chance.random() * 0.002, **places)["killed"]:
                    faults.append(time.monotonic())
    finally:
        striker.close()
    return faults


def _final(file: Path) -> Final:
    with duckdb.connect(str(file), read_only=True) as database:
        log = [(int(client), int(n)) for client, n in database.execute("SELECT client, n FROM log ORDER BY rowid").fetchall()]
        return Final(log, dict(database.execute("SELECT k, v FROM rows_by_key").fetchall()))


def _sum_up(stage: Stage, history: History, recorded_s: float, checked_s: float) -> None:
    operations: list[Operation] = history.operations
    stage.line(
        summary=True,
        operations=len(operations),
        clients=CLIENTS,
        keys=KEYS,
        hot_keys=HOT_KEYS,
        kinds=dict(Counter(each.kind for each in operations)),
        outcomes=dict(Counter(each.outcome for each in operations if not each.is_read)),
        waited_for_a_version=sum(each.at_least is not None for each in operations),
        writers_killed=len(history.faults),
        versions=len({each.version for each in operations}),
        recorded_s=round(recorded_s, 1),
        checked_s=round(checked_s, 1),
    )

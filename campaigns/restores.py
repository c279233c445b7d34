"""`kill -9` of the keeper, or of its restorer, in the midst of restores in place: the old database or the restored one, whole.

Each round writes something new, begins to restore a version, and kills at a random moment or at a step of the swap. Then the keeper is
started again. What it serves must be what was there before, or what was restored, and it must take writes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from campaigns.injecting import why_no_tracer
from campaigns.running import Stage
from campaigns.snares import Point, Snare
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from pondkeeper.files import swapping
from tests.support.keeper import KeeperProcess, keepers, wait_until

LONG_ROUNDS, SHORT_ROUNDS = 200, 3
VERSIONS = 2
ROWS = 3_000
STEP_WITHIN_S = 60.0
LONGER = 1.3  # than an undisturbed restore: some kills come after its end
CONTENT = "SELECT count(*), coalesce(sum(x), 0)::BIGINT FROM t"


def play(stage: Stage) -> None:
    """All rounds with one database, so that what one leaves behind meets the next."""
    room = stage.room("restores")
    keeper = KeeperProcess(room / "pond.duckdb", "--readers", "1", "--archive", str(room / "archive"))
    ended: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    chance = stage.chance
    with keepers(keeper):
        keeper.start()
        known = _versions(keeper)
        began = time.monotonic()
        assert _restore(keeper, min(known)) == "restored"
        longest_s = LONGER * (time.monotonic() - began)
        for number in range(1, stage.options.of(LONG_ROUNDS, SHORT_ROUNDS) + 1):
            if not stage.has_time:
                break
            step = None if number % 3 == 2 or why_no_tracer() else chance.choice(_steps(keeper))
            said = _round(keeper, chance, known, number, longest_s, step)
            steps.update([str(said["at"])] if step else [])
            ended[said["ended"]] += 1
            stage.line(round=number, **said)
            stage.violated([f"round {number}: {text}" for text in said["violations"]])
        keeper.stop()
        stage.control("a WAL that does not belong to the file", _stale_wal(keeper, room))
    stage.line(summary=True, ended=dict(ended), steps=dict(sorted(steps.items())))


def _versions(keeper: KeeperProcess) -> dict[int, list[int]]:
    """Versions in the archive, each with other rows."""
    client = keeper.local_client()
    client.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
    known = {}
    for number in range(VERSIONS):
        client.execute("DELETE FROM t")
        client.execute(f"INSERT INTO t SELECT range * {number + 2} FROM range({ROWS})")
        done = keeper.cli("backup", "now", "--json")
        assert done.returncode == 0, done.stderr
        known[int(json.loads(done.stdout)["version"])] = [ROWS, sum(range(ROWS)) * (number + 2)]
    return known


def _steps(keeper: KeeperProcess) -> list[Point]:
    """The steps of `files/swapping.py`, each by the call that would have done it."""
    paths, parent = keeper.database, keeper.target.parent
    # Trap: strace compares only the first path of a rename, and the journal's has a name that nobody can know; the flushes
    # of its folder (the lease's, the lineage's, the one before it, the one behind it, that of its end) stand around it.
    steps = [
        *(Point("flush", nth, paths.turn) for nth in range(1, 7)), *(Point("flush", nth, parent) for nth in (1, 2, 3)),
        Point("link", path=paths.file), Point("rename", path=parent / f".{paths.file.name}.swap.tmp"),
        Point("remove", path=swapping.journal(paths)),
    ]  # fmt: skip
    return [replace(step, every_thread=True) for step in steps]


def _round(
    keeper: KeeperProcess, chance: random.Random, known: dict[int, list[int]], number: int, longest_s: float, step: Point | None
) -> dict[str, Any]:
    client = keeper.local_client()
    answer = client.execute("INSERT INTO t VALUES (?)", [-number])
    before = client.query(CONTENT, at_least=answer.version).rows[0]
    version, victim = chance.choice(sorted(known)), chance.choice(("keeper", "keeper", "restorer")) if step is None else "keeper"
    after_s, at = chance.random() * longest_s, None
    with ThreadPoolExecutor(1) as threads:
        if step is not None:
            outcome, at = _restore_into(keeper, step, threads, version)
        else:
            restoring = threads.submit(_restore, keeper, version)
            time.sleep(after_s)
            if victim == "restorer":
                _kill_restorer(keeper, restoring)
            else:
                keeper.kill9()
            outcome = restoring.result()
    if victim == "keeper":
        keeper.restart()
    wrong = []
    content = _settled(keeper, [before, known[version]])
    if content not in (before, known[version]):
        wrong.append(f"{content} is neither what was there, {before}, nor version {version}, {known[version]}")
    if outcome == "restored" and content != known[version]:
        wrong.append(f"the restore was acknowledged, and there is {content}")
    written = keeper.local_client().execute("INSERT INTO t VALUES (?)", [-(10**6) - number])
    if keeper.local_client().query(CONTENT, at_least=written.version).rows[0][0] != content[0] + 1:
        wrong.append("a write after it did not count")
    if swapping.is_under_way(keeper.database) or keeper.target.stat().st_nlink != 1:
        wrong.append("the swap was not ended")
    ended = "new" if content == known[version] else "old"
    return {"victim": victim, "step": str(step) if step else None, "after_s": None if step else round(after_s, 3), "at": at, "outcome": outcome, "ended": ended, "violations": wrong}


def _restore_into(keeper: KeeperProcess, step: Point, threads: ThreadPoolExecutor, version: int) -> tuple[str, str | None]:
    """Restore, and kill the keeper at that step: what the client was told, and where the keeper was."""
    log = keeper.target.parent / "snare.log"
    snare = Snare(keeper.pid, step, log)
    snare.wait_attached()
    restoring = threads.submit(_restore, keeper, version)
    at = snare.strike(keeper.target.parent, timeout_s=STEP_WITHIN_S, is_over=restoring.done)
    keeper.kill9()
    log.unlink(missing_ok=True)
    return restoring.result(), at


def _restore(keeper: KeeperProcess, version: int) -> str:
    try:
        with Client.local(keeper.home.root, retry_for_s=0.0) as client:
            client.restore(version=version)
    except PondkeeperError as error:
        return error.code
    return "restored"


def _kill_restorer(keeper: KeeperProcess, restoring: Future[str]) -> None:
    """Kill the child that fetches or proves, as soon as there is one."""
    while not restoring.done():
        for pid in keeper.children():
            try:
                is_alone = b"pondkeeper.workers.alone" in Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if is_alone:
                os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.005)


def _settled(keeper: KeeperProcess, contents: list[list[int]]) -> list[int]:
    """What is served when everything is published that is in the file."""
    client = keeper.local_client()
    client.take_snapshot()
    found: list[int] = client.query(CONTENT).rows[0]
    if found not in contents:
        try:
            wait_until(lambda: client.query(CONTENT).rows[0] in contents, what="one of the two")
        except AssertionError:
            return found
        found = client.query(CONTENT).rows[0]
    return found


def _stale_wal(keeper: KeeperProcess, room: Path) -> list[str]:
    """What a restore by `cp` does that leaves the WAL: DuckDB refuses the pair, or reads what nobody wrote."""
    file = room / "control.duckdb"
    shutil.copy(keeper.target, file)
    with duckdb.connect(str(file)) as database:
        database.execute("PRAGMA disable_checkpoint_on_shutdown")
        database.execute("INSERT INTO t VALUES (-77)")
    older = room / "older.duckdb"
    shutil.copy(keeper.target, older)
    with duckdb.connect(str(older)) as database:
        database.execute("DELETE FROM t")
        database.execute("INSERT INTO t VALUES (1)")
        database.execute("CHECKPOINT")
    shutil.copy(older, file)
    try:
        with duckdb.connect(str(file)) as database:
            content = database.execute(CONTENT).fetchone()
    except duckdb.Error as error:
        return [f"DuckDB refuses the pair: {str(error)[:100]}"]
    return [] if content == (1, 1) else [f"{content} instead of what was restored"]

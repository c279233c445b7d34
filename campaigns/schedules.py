"""Schedules under kills of the keeper: jobs run by the clock, after each other, and tell a webhook, while nobody lets the keeper be.

What must hold: what ran is in the history, once, and nothing else is; no success is left without the job that comes after it; nothing
is started that is switched off, and no more is started than the clock, the kills and the successes account for; and the webhook is
told of every failure and recovery, in order, each at least once.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from campaigns.running import Stage
from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.folders import read_status, runs_of
from tests.support.hook import Hook
from tests.support.keeper import KeeperProcess, keepers, wait_until

LONG_ROUNDS, SHORT_ROUNDS = 200, 3
ENDED_S = 120.0
JOBS = """
[runs]
max_running = 3
keep = 100000
[jobs.tick]
kind = "command"
command = ["sleep", "0.1"]
schedule = "every 1s"
[jobs.next]
kind = "command"
command = ["sleep", "0.1"]
after = ["tick"]
[jobs.flaky]
kind = "command"
command = ["sh", "-c", "n=$(cat count || echo 0); echo $((n + 1)) >count; test $((n % 2)) = 1"]
schedule = "every 1s"
notify = "env:HOOK"
[jobs.off]
kind = "command"
command = ["true"]
schedule = "every 1s"
enabled = false
"""
MISTAKE = JOBS.replace("every 1s", "evry 1s")


@dataclass
class Seen:
    """What is there at the end. `recorded`: job and outcome of each run in the history, in its order, by run id."""

    folders: dict[str, str]
    recorded: dict[str, tuple[str, str]]
    totals: dict[str, int]
    told: list[tuple[int, str]] = field(default_factory=list)


def play(stage: Stage) -> None:
    """Kill the keeper and spoil its settings file, round after round; then switch everything off, and look."""
    room, chance = stage.room("keeper"), stage.chance
    home = Home(default_home(room / "pond.duckdb"))
    home.root.mkdir(mode=0o700)
    _write(home, JOBS)
    with _hook() as hook:
        keeper = KeeperProcess(room / "pond.duckdb", environment={"HOOK": hook.url})
        with keepers(keeper):
            began, rounds = time.time(), 0
            keeper.start()
            for _ in range(stage.options.of(LONG_ROUNDS, SHORT_ROUNDS)):
                if not stage.has_time:
                    break
                _kill(keeper, home, chance)
                rounds += 1
            try:
                _end(keeper, home)
            except AssertionError as error:
                stage.violated([str(error)])
                return
            elapsed_s = time.time() - began
            keeper.stop()
        seen = _look(home, hook)
    stage.violated(judge(seen, rounds, elapsed_s))
    _controls(stage, seen, rounds, elapsed_s)
    outcomes = Counter(f"{job} {outcome}" for job, outcome in seen.recorded.values())
    stage.line(summary=True, kills=rounds, elapsed_s=round(elapsed_s, 1), runs=dict(outcomes), told=len(seen.told))


@contextlib.contextmanager
def _hook() -> Iterator[Hook]:
    hook = Hook()
    try:
        yield hook
    finally:
        hook.close()


def _write(home: Home, text: str) -> None:
    temp = home.settings_file.with_suffix(".new")
    temp.write_text(text)
    temp.replace(home.settings_file)


def _kill(keeper: KeeperProcess, home: Home, chance: random.Random) -> None:
    """Let it work for a while, sometimes with a mistake in its settings file, which is mended before it starts again."""
    time.sleep(chance.uniform(0.2, 2.5))
    if chance.random() < 0.3:
        _write(home, MISTAKE)
        time.sleep(chance.uniform(0.0, 2.5))
    keeper.kill9()
    _write(home, JOBS)
    keeper.restart()


def _end(keeper: KeeperProcess, home: Home) -> None:
    """Switch off what runs by the clock, and wait until everything has had its time."""
    with keeper.local_client() as client:
        for name in ("tick", "flaky"):
            client.jobs.disable(name)
    ids: set[str] = set()
    while ids != set(_made(home)):  # until nothing new comes: the successes of the last runs have theirs after them
        ids = set(_made(home))
        wait_until(lambda: all(home.run(run_id).recorded.exists() for run_id in _made(home)), timeout_s=ENDED_S, what="records")
        time.sleep(1.5)
    wait_until(lambda: not _rows(home, "SELECT id FROM job_notices"), timeout_s=ENDED_S, what="the delivery of every notice")


def _made(home: Home) -> list[str]:
    """The runs that there are: a folder without a status is half made, by a keeper that died before it told anybody of it."""
    return [run_id for run_id in runs_of(home.root) if home.run(run_id).status_json.exists()]


def _rows(home: Home, sql: str) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(f"{home.control_db.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql).fetchall()


def _look(home: Home, hook: Hook) -> Seen:
    statuses = {run_id: read_status(home.root, run_id) for run_id in _made(home)}
    return Seen(
        folders={run_id: status.job if status else "unreadable" for run_id, status in statuses.items()},
        recorded={run_id: (job, outcome) for run_id, job, outcome in _rows(home, "SELECT run_id, job, outcome FROM job_runs ORDER BY seq")},
        totals={job: int(count) for job, count in _rows(home, "SELECT job, done + failed + cancelled FROM job_totals")},
        told=[(int(headers["Pondkeeper-Delivery"]), json.loads(body)["occasion"]) for headers, body in hook.got],
    )


def judge(seen: Seen, kills: int, elapsed_s: float) -> list[str]:
    """What is wrong."""
    wrong = [f"run {run_id} of {job} is not in the history" for run_id, job in seen.folders.items() if run_id not in seen.recorded]
    wrong += [f"run {run_id} is in the history, and was never there" for run_id in seen.recorded if run_id not in seen.folders]
    counts = Counter(job for job, _ in seen.recorded.values())
    wrong += [f"{job}: {counts[job]} runs, and totals of {total}" for job, total in seen.totals.items() if counts[job] != total]
    order = [job for job, _ in seen.recorded.values()]
    if "tick" in order and "next" not in order[len(order) - order[::-1].index("tick") :]:
        wrong.append("the last success of tick has no run of next after it")
    most = {"tick": elapsed_s + kills + 2, "flaky": elapsed_s + kills + 2, "next": counts["tick"] + kills, "off": 0}
    wrong += [f"{job} ran {counts[job]} times, and {most[job]:.0f} were due at most" for job in most if counts[job] > most[job]]
    wrong += [f"{job} never ran" for job in ("tick", "next", "flaky") if not counts[job]]
    return wrong + _untold(seen)


def _untold(seen: Seen) -> list[str]:
    """Each failure after a success, and each success after a failure, is one notice, delivered once or more, in order."""
    outcomes = [outcome for job, outcome in seen.recorded.values() if job == "flaky"]
    changes = [new for old, new in zip(["done", *outcomes], outcomes, strict=False) if old != new]
    expected = [{"failed": "failure", "done": "recovery"}[outcome] for outcome in changes]
    first_told = list(dict.fromkeys(seen.told))
    wrong = [] if first_told == sorted(first_told) else ["notices were told out of order"]
    told = [occasion for _, occasion in first_told]
    return wrong + ([] if told == expected else [f"{len(expected)} notices were due, and {len(told)} were told: {told[:9]}"])


def _controls(stage: Stage, seen: Seen, kills: int, elapsed_s: float) -> None:
    """A run that nobody recorded, one recorded that never was, a storm of runs, a notice that got lost: planted, and found."""
    lost = dict(list(seen.recorded.items())[1:])
    stage.control("a run that is not recorded", judge(Seen(seen.folders, lost, {}, seen.told), kills, elapsed_s))
    invented = seen.recorded | {"never": ("off", "done")}
    stage.control("a run that never was", judge(Seen(seen.folders, invented, {}, seen.told), kills, elapsed_s))
    stage.control("more runs than were due", judge(seen, 0, 0.0))
    told = [each for each in seen.told if each != seen.told[0]]
    stage.control("a notice that got lost", judge(Seen(seen.folders, seen.recorded, seen.totals, told), kills, elapsed_s))

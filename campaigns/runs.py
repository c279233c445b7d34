"""Runs of jobs under kills: of the keeper, of their supervisors, of their programs, and of several at once.

What must hold: a run whose id was told ends, is done, and is recorded once; of a job never two programs live at a time (each takes
a lock, which what it leaves behind holds on to); and no process of a run lives when the run has ended.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from campaigns.running import Stage, percentile
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.folders import read_status, runs_of
from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import Phase, RunStatus
from tests.support.keeper import KeeperProcess, keepers, wait_until

LONG_ROUNDS, SHORT_ROUNDS = 1000, 8
JOBS = ("one", "two", "three", "four")
ENDED_S = 120.0
WORK = """
import fcntl, os, signal, sys, time
lock = os.open(sys.argv[1] + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open("overlaps", "a").write(sys.argv[1] + " " + os.environ.get("PONDKEEPER_RUN", "by hand") + "\\n")
if os.fork() == 0:  # a daemon that holds the lock, in a session of its own, deaf to SIGTERM
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
time.sleep(float(sys.argv[2]))
"""


def play(stage: Stage) -> None:
    """Trigger jobs and kill whatever carries them out, round after round; then wait for every end and look."""
    room, chance = stage.room("keeper"), stage.chance
    home = _prepare(room)
    keeper = KeeperProcess(room / "pond.duckdb")
    told: set[str] = set()
    again_s: list[float] = []
    kills: dict[str, int] = {}
    with keepers(keeper):
        keeper.start()
        try:
            told |= _trigger(keeper, JOBS)
            for _ in range(stage.options.of(LONG_ROUNDS, SHORT_ROUNDS)):
                if not stage.has_time:
                    break
                told |= _trigger(keeper, chance.sample(JOBS, chance.randint(0, len(JOBS))))
                time.sleep(chance.choice((0.0, 0.02, 0.1, 0.3)))
                victim = _kill(keeper, home, chance)
                kills[victim] = kills.get(victim, 0) + 1
                if not keeper.is_running():
                    began = time.monotonic()
                    keeper.restart()
                    again_s.append(time.monotonic() - began)
            stage.violated(_judge(keeper, home, told, room))
            _controls(stage, room, told)
        finally:
            for run_id in runs_of(home.root):
                end_orphans(run_id)
    stage.line(summary=True, runs=len(told), kills=kills, ready_again_p50_s=percentile(again_s, 0.5), ready_again_max_s=percentile(again_s, 1.0))


def _prepare(room: Path) -> Home:
    home = Home(default_home(room / "pond.duckdb"))
    home.root.mkdir()
    (room / "work.py").write_text(WORK)
    jobs = [
        f'[jobs.{name}]\nkind = "command"\ncommand = ["{sys.executable}", "-S", "work.py", "{name}", "{0.05 * place * place:g}"]\n'
        "retries = 1000\nretry_wait_s = 0\n"
        for place, name in enumerate(JOBS)
    ]
    home.settings_file.write_text("[runs]\nmax_running = 3\nkill_after_s = 0.2\nkeep = 100000\n" + "\n".join(jobs))
    return home


def _trigger(keeper: KeeperProcess, names: Sequence[str]) -> set[str]:
    """Ask for these jobs; the ids that were told. A keeper that was killed meanwhile tells none."""
    with keeper.local_client(retry_for_s=0.0) as client:
        try:
            return {str(client.jobs.run(name)["run_id"]) for name in names}
        except PondkeeperError:
            return set()


def _kill(keeper: KeeperProcess, home: Home, chance: random.Random) -> str:
    """Kill somebody; who it was."""
    going = [status for run_id in runs_of(home.root)[:8] if (status := read_status(home.root, run_id)) and _goes_on(status)]
    supervisors = [status.pid for status in going if status.pid is not None]
    victim = chance.choice(("keeper", "supervisor", "both", "program"))
    if victim in ("supervisor", "both"):
        for pid in supervisors if victim == "both" else supervisors[:1]:
            _shoot(pid)
    if victim == "program":
        for pid in _children(supervisors):
            _shoot(pid)
    if victim in ("keeper", "both"):
        keeper.kill9()
    return victim


def _goes_on(status: RunStatus) -> bool:
    return not status.is_final and status.phase is not Phase.QUEUED


def _shoot(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children(parents: list[int]) -> list[int]:
    found: list[int] = []
    for parent in parents:
        try:
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        except OSError:
            continue
    return found


def _judge(keeper: KeeperProcess, home: Home, told: set[str], room: Path) -> list[str]:
    """What is wrong when everything has had its time."""

    def all_ended() -> bool:
        return all((status := read_status(home.root, run_id)) is not None and status.is_final for run_id in runs_of(home.root))

    try:
        wait_until(all_ended, timeout_s=ENDED_S, what="the end of every run")
        wait_until(lambda: all(home.run(run_id).recorded.exists() for run_id in runs_of(home.root)), timeout_s=ENDED_S, what="records")
    except AssertionError as error:
        return [str(error)]
    recorded = {run["run_id"]: run for run in keeper.local_client().jobs.runs(limit=10_000)}
    wrong = [f"run {run_id} was told, and is not there" for run_id in sorted(told - recorded.keys())]
    wrong += [f"run {run_id} is {recorded[run_id]['phase']}" for run_id in sorted(told & recorded.keys()) if recorded[run_id]["phase"] != "done"]
    return wrong + _overlaps(room) + _orphans(told)


def _overlaps(room: Path) -> list[str]:
    file = room / "overlaps"
    return [f"two at a time, or something left behind: {line}" for line in file.read_text().splitlines()] if file.exists() else []


def _orphans(told: set[str]) -> list[str]:
    marks = {f"PONDKEEPER_RUN={run_id}".encode(): run_id for run_id in told}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        found += [f"process {entry.name} of run {marks[word]} lives on" for word in words if word in marks]
    return found


def _controls(stage: Stage, room: Path, told: set[str]) -> None:
    """Two programs at a time, and one that outlives its run, planted by hand."""
    run_id = next(iter(told))
    command = [sys.executable, "-S", "work.py", "one", "0"]
    environment = {**os.environ, "PONDKEEPER_RUN": run_id}
    for _ in range(2):
        subprocess.run(command, cwd=room, env=environment, check=False)
    stage.control("a program that outlived its run", _orphans({run_id}))
    stage.control("two programs of a job at a time", _overlaps(room))
    end_orphans(run_id)
    stage.violated(_orphans({run_id}))

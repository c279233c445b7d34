"""`kill -9` of followers, feeders and both keepers of a primary and its replica, at random and named moments, under a mixed load.

Clients read both sides all the time. Whatever a replica shows is what the writer had at that version, and what the primary
shows of it; its versions never go back; after each look it has caught up, and nothing is left of those that were killed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from campaigns import replicacontrols
from campaigns.followed import CONTENT, Judge, Watcher, Writer
from campaigns.injecting import why_no_tracer
from campaigns.replicacontrols import leaked_files
from campaigns.running import Options, Stage, percentile
from campaigns.snares import Point, Snare
from campaigns.striker import Striker
from pondkeeper.client import Client
from tests.support.keeper import KeeperProcess, keepers, wait_until
from tests.support.processes import is_alive, tree
from tests.support.replicas import ReplicaProcess

LONG_ROUNDS, SHORT_ROUNDS = 2_000, 200
SHORT_BUDGET_S = 8.0  # Why: CI has twenty minutes for everything; it makes as many rounds as fit
VOLLEY = 4  # kills of the short form from one look to the next
PATIENCE_S = 90.0  # far above what it takes: a keeper's start takes seconds of a busy machine
LONGEST_DELAY_S = 0.3
MOST_NEW_DESCRIPTORS = 24
READERS = ("--readers", "1")
_POINTS = {
    "follower": (
        *(Point("write", nth) for nth in (1, 2, 3, 5, 8)), Point("cut"), Point("seal"), Point("symlink"), Point("create", 2),
        *(Point(call, nth) for call in ("flush", "rename", "remove") for nth in (1, 2, 3)), Point("tell", 4), Point("read", 3),
    ),
    "feeder": (*(Point("read", nth) for nth in (1, 3, 6, 12)), *(Point("tell", nth) for nth in (1, 2, 4)), Point("create")),
}  # fmt: skip
_WEIGHTS = {
    ("follower", "point"): 30, ("follower", "random"): 14, ("feeder", "point"): 16, ("feeder", "random"): 8,
    ("replica", "random"): 5, ("replica", "copy"): 5, ("replica", "starting"): 4,
    ("primary", "random"): 4, ("primary", "commit"): 3, ("primary", "checkpoint"): 3, ("primary", "copy"): 4,
    ("both keepers", "random"): 2, ("follower and feeder", "random"): 6,
}  # fmt: skip


@dataclass(frozen=True)
class Round:
    """What one round does, drawn from the seed before anything runs."""

    round: int
    victim: str
    moment: str
    delay_s: float
    point: Point | None


def plan(options: Options) -> list[Round]:
    """All rounds; the same for the same seed."""
    chance = random.Random(f"{options.seed}/replicas/plan")
    can_trace = why_no_tracer() is None
    return [_draw(number, chance, can_trace) for number in range(1, options.of(LONG_ROUNDS, SHORT_ROUNDS) + 1)]


def _draw(number: int, chance: random.Random, can_trace: bool) -> Round:
    victim, moment = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    point = chance.choice(_POINTS[victim]) if moment == "point" else None
    if point is not None and not can_trace:
        moment, point = "random", None
    return Round(number, victim, moment, round(chance.random() * LONGEST_DELAY_S, 4), point)


def play(stage: Stage) -> None:
    """The rounds, and the controls on what is there in the end."""
    room = stage.room("replicas")
    if why := why_no_tracer():
        stage.say(f"no kills at system calls: {why}")
    primary = KeeperProcess(room / "pond.duckdb", *READERS)
    with keepers(primary):
        primary.start()
        with _loaded(primary, stage.chance) as writer:
            replica = ReplicaProcess(room / "replica", primary.url, primary.key, *READERS)
            with keepers(replica):
                replica.start()
                _Pair(stage, room, primary, replica, writer).play(plan(stage.options))


@contextmanager
def _loaded(primary: KeeperProcess, chance: random.Random) -> Iterator[Writer]:
    writer = Writer(lambda retry_for_s: Client(primary.url, primary.key, retry_for_s=retry_for_s), chance)
    writer.start()
    try:
        wait_until(lambda: writer.failure or writer.ledger.newest, timeout_s=PATIENCE_S, what="the first commit")
        yield writer
    finally:
        writer.stop()


class _Pair:
    """A primary and its replica under load, and what is done to them."""

    def __init__(self, stage: Stage, room: Path, primary: KeeperProcess, replica: ReplicaProcess, writer: Writer) -> None:
        self._stage = stage
        self._room = room
        self._primary = primary
        self._replica = replica
        self._paths = replica.paths("pond")
        self._writer = writer
        self._judge = Judge(writer.ledger)
        self._striker = Striker()
        self._seen: Counter[str] = Counter()
        self._kills: Counter[str] = Counter()
        self._caught_up_s: list[float] = []
        self._dead: list[int] = []
        self._descriptors: dict[int, int] = {}

    def play(self, rounds: list[Round]) -> None:
        """All rounds; a violation ends them, so that the evidence stays as it is."""
        watchers = []
        try:
            self._catch_up()
            watchers = [Watcher(side, self._connect(side), self._judge) for side in ("primary", "replica")]
            made = self._rounds(rounds)
            self._writer.stop()
            self._catch_up(is_quiet=True)
            self._stage.violated(self._left_behind())
        finally:
            for watcher in watchers:
                watcher.stop()
            self._striker.close()
        self._stage.violated(self._judge.wrong)
        replicacontrols.play(self._stage, self._room, self._replica, self._connect("replica"), self._writer.ledger)
        self._end()
        self._sum_up(made)

    def _rounds(self, rounds: list[Round]) -> int:
        short = self._stage.options.short
        ends_at = time.monotonic() + (SHORT_BUDGET_S if short else float("inf"))
        made = 0
        for planned in rounds:
            if self._stage.violations or not self._stage.has_time or (made >= VOLLEY and time.monotonic() > ends_at):
                break
            began = time.monotonic()
            said = self._strike(planned)
            made = planned.round
            if not short or made % VOLLEY == 0:
                said["caught_up_s"] = self._look()
            described = asdict(planned) | {"point": str(planned.point) if planned.point else None}
            self._stage.line(**described, **said, version=self._judge.newest["replica"], took_s=round(time.monotonic() - began, 3))
        return made

    # Kills

    def _strike(self, planned: Round) -> dict[str, Any]:
        if planned.victim in ("replica", "primary", "both keepers"):
            self._dead += tree(self._replica.pid)[1:] + tree(self._primary.pid)[1:]
        if planned.point is not None:
            said = self._ensnare(planned.victim, planned.point)
        elif planned.victim in ("replica", "primary"):
            said = self._kill_a_keeper(planned)
        elif planned.victim == "both keepers":
            time.sleep(planned.delay_s)
            said = {"killed": self._crash(self._replica) + self._crash(self._primary)}
        else:
            said = {"killed": sum(self._kill_child(name, planned.delay_s) for name in planned.victim.split(" and "))}
        self._kills[planned.victim] += bool(said["killed"])
        return said

    def _ensnare(self, name: str, point: Point) -> dict[str, Any]:
        pid = self._child(name)
        if pid is None:
            return {"killed": 0, "at": None}
        snare = Snare(pid, point, self._room / "snare.log")
        snare.wait_attached()
        at = snare.strike(self._paths.folder if name == "follower" else self._primary.database.folder)
        (self._room / "snare.log").unlink(missing_ok=True)
        self._seen.update([f"{name}: {at}"] if at else [])
        return {"killed": int(at is not None), "at": at}

    def _kill_child(self, name: str, delay_s: float) -> int:
        pid = self._child(name)
        return int(pid is not None and self._striker.strike("random", pid, delay_s)["killed"])

    def _kill_a_keeper(self, planned: Round) -> dict[str, Any]:
        keeper = self._primary if planned.victim == "primary" else self._replica
        if planned.moment == "starting":
            self._crash(keeper)
            time.sleep(3 * planned.delay_s)
            return {"killed": self._crash(keeper)}
        paths = self._primary.database if keeper is self._primary else self._paths
        places = {"file": str(paths.file), "snapshots": str(paths.snapshots), "lease": str(paths.lease_json)}
        said = self._striker.strike(planned.moment, keeper.pid, planned.delay_s, **places)
        keeper.process.wait()
        keeper.launch()
        self._seen[f"{planned.victim}: {planned.moment}"] += bool(said["seen"])
        return {"killed": int(said["killed"])}

    def _crash(self, keeper: KeeperProcess) -> int:
        keeper.kill9()
        keeper.launch()
        return 1

    def _child(self, name: str) -> int | None:
        """The child of that name, once there is one."""
        keeper = self._replica if name == "follower" else self._primary
        with suppress(AssertionError):  # Why: an idle primary has no feeder, and then nobody is killed
            return int(wait_until(lambda: keeper.children(name), timeout_s=5.0)[0])
        return None

    # Looks

    def _look(self) -> float:
        """Wait until all is well again; what is not is a violation. How long the replica took to catch up."""
        took_s = self._catch_up()
        self._stage.violated(self._judge.wrong)
        self._stage.violated(self._left_behind())
        self._stage.violated([self._writer.failure] if self._writer.failure else [])
        return took_s

    def _catch_up(self, *, is_quiet: bool = False) -> float:
        """Until the replica shows a commit that was acknowledged after this began (or the last one)."""
        for keeper in (self._primary, self._replica):
            keeper.wait_ready(PATIENCE_S)
        ledger, before = self._writer.ledger, len(self._writer.ledger.answered)
        if not is_quiet:
            wait_until(lambda: self._writer.failure or len(ledger.answered) > before, timeout_s=PATIENCE_S, what="a commit")
        began, wanted = time.monotonic(), ledger.newest
        with self._connect("replica")(0.0) as client:
            wait_until(lambda: (client.status("pond")["version"] or 0) >= wanted, timeout_s=PATIENCE_S, what=f"version {wanted}")
        self._caught_up_s.append(time.monotonic() - began)
        return round(self._caught_up_s[-1], 3)

    def _left_behind(self) -> list[str]:
        """What is still there of the killed, when it should have gone. Why patience: what lives makes such things too."""
        wrong: list[str] = []

        def is_clean() -> bool:
            wrong[:] = self._leaks()
            return not wrong

        with suppress(AssertionError):
            wait_until(is_clean, timeout_s=PATIENCE_S / 6)
        if not wrong:
            self._dead.clear()
        return wrong

    def _leaks(self) -> list[str]:
        wrong = leaked_files(self._paths.folder)
        for keeper, name in ((self._replica, "follower"), (self._primary, "feeder")):
            if len(found := keeper.children(name)) > 1:
                wrong.append(f"there are {len(found)} processes {name}")
            count = len(os.listdir(f"/proc/{keeper.pid}/fd"))
            if count > self._descriptors.setdefault(keeper.pid, count) + MOST_NEW_DESCRIPTORS:
                wrong.append(f"the keeper of the {name} has {count} descriptors, and had {self._descriptors[keeper.pid]}")
        ours = {self._replica.pid, self._primary.pid}
        alive = {pid for pid in self._dead if is_alive(pid)} - {pid for root in ours for pid in tree(root)}
        return [*wrong, *(f"process {pid} has outlived its keeper" for pid in sorted(alive))]

    def _connect(self, side: str) -> Any:
        keeper = self._primary if side == "primary" else self._replica
        return lambda retry_for_s: Client(keeper.url, keeper.key, database="pond", retry_for_s=retry_for_s)

    # The end

    def _end(self) -> None:
        """Both stop in order; the replica's last version, read by DuckDB itself, is the last commit."""
        last = self._paths.published_by_name.resolve()
        for keeper in (self._replica, self._primary):
            self._stage.violated([f"a keeper stopped with {code}"] if (code := keeper.stop()) else [])
            if "Traceback" in keeper.log():
                self._stage.violated(["there is a traceback in a keeper's log"])
        with duckdb.connect(str(self._primary.target), read_only=True) as database:
            there = database.execute(CONTENT).fetchall()
        if not last.exists():
            self._stage.violated(["the replica has no version in the end"])
            return
        with duckdb.connect(str(last), read_only=True) as database:
            here = database.execute(CONTENT).fetchall()
        self._stage.violated([] if here == there else [f"in the end the replica has {here}, the primary {there}"])

    def _sum_up(self, rounds: int) -> None:
        judge = self._judge
        self._stage.line(
            summary=True, rounds=rounds, killed=sum(self._kills.values()), kills=dict(self._kills),
            commits=len(self._writer.ledger.answered), answers=dict(judge.answers), versions_compared=judge.compared,
            caught_up_p50_s=percentile(self._caught_up_s, 0.5), caught_up_p99_s=percentile(self._caught_up_s, 0.99),
            caught_up_max_s=percentile(self._caught_up_s, 1.0), errors=dict(judge.errors), points=dict(sorted(self._seen.items())),
        )  # fmt: skip
        if sum(self._kills.values()) < max(1, rounds // 4):  # Why so few: on a busy machine some points are not reached in time
            self._stage.violated([f"only {sum(self._kills.values())} of {rounds} rounds killed somebody"])
        if not judge.compared:
            self._stage.violated(["no version was seen on both sides"])

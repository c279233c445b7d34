"""Live cuts: a keeper works on a disk that loses its power, dies with it, and its successor starts from what is left."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from campaigns.diskstates import read_tree
from campaigns.fusekernel import private_mounts
from campaigns.livedisk import LiveDisk, why_no_fuse
from campaigns.powercalls import Recoverer, expected
from campaigns.powerwork import LOOK, Step, draw
from campaigns.recovering import NOTHING
from campaigns.running import Stage
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess, program_environment

LONG_CUTS, SHORT_CUTS = 100, 3
LONG_CHAIN = 10  # so many cuts, one after the other, are of one database
PLANNED_PER_CUT = 4  # Why so few: the backup and the restore amid the plan are to be reached
LEAST_PLANNED = 30
MOST_STEPS_PER_CUT = 30
PLAIN_STEPS = 12
TIMEOUT_S = 120.0
DEAF_READY_S = 20.0  # Why shorter: on a deaf disk a file beyond repair is what we want to see
PLACES = ("file", "file", "wal", "anywhere")
MOST_CHANGES = {"file": 150, "wal": 60, "anywhere": 600}
STARTS_CUT = 0.25  # the share of cuts that may come already into the start
CHANGES_OF_START = 150
CONTROL_ROUNDS = 60  # one is often enough


class _Keeper(KeeperProcess):
    """One whose log is not on the disk that loses its power."""

    def __init__(self, target: Path, log: Path) -> None:
        super().__init__(target)
        self._log_path = log


class _Chain:
    """One database, and one cut after the other; the client goes on where it was."""

    def __init__(self, stage: Stage, name: str, chance: random.Random, cuts: int, *, is_deaf: bool = False) -> None:
        self.folder = stage.room(name)
        self.cuts = 0
        self._stage = stage
        self._chance = chance
        self._is_deaf = is_deaf
        self._steps = draw(chance, max(LEAST_PLANNED, cuts * PLANNED_PER_CUT))
        self._right = expected(self._steps)
        self._versions: dict[int, int] = {}
        self._done = self._begun = -1
        self._known_repair: Any = None
        self._last = "nothing, it is the first start"
        self._state = stage.room(f"{name}/state-0")

    def play(self, *, is_last: bool = False) -> dict[str, Any]:
        """One life of the disk: start, look, go on unless it is the last, cut. What it was, with `wrong`."""
        self.cuts += 1
        self._ready_s: float | None = None
        self._repaired: Any = None
        wrong: list[str] = []
        after = self.folder / f"state-{self.cuts}"
        begun_with = self._done
        with LiveDisk(self.folder / "disk", self._state, after, self._key("disk"), is_deaf=self._is_deaf) as disk:
            is_early = self.cuts > 1 and not is_last and self._chance.random() < STARTS_CUT
            if is_early:
                disk.arm("anywhere", self._chance.randint(1, CHANGES_OF_START))
            keeper = _Keeper(disk.place / "pond.duckdb", self.folder / f"keeper-{self.cuts}.log").launch()
            disk.kills(keeper.pid)
            try:
                wrong += self._use(keeper, disk, is_armed=is_early, is_last=is_last)
            except (AssertionError, PondkeeperError, OSError) as error:
                if disk.cut_by is None:  # Why not a wait: it is known before anybody is killed
                    wrong.append(f"after the cut at {self._last}: {type(error).__name__}: {error}")
            finally:
                disk.cut()
                keeper.dispose()
        if not wrong:
            shutil.rmtree(self._state)
        self._state, self._last = after, str(disk.cut_by)
        return {
            "cut_at": disk.cut_by, "steps": self._done - begun_with, "done": self._done, "begun": self._begun,
            "ready_s": self._ready_s, "repaired": self._repaired, "wrong": wrong,
        }  # fmt: skip

    @property
    def is_over(self) -> bool:
        """Whether all steps are done: there is nothing more to be cut."""
        return self._done + 1 == len(self._steps)

    @property
    def has_acknowledged(self) -> bool:
        return self._done >= 0

    def _arm(self, disk: LiveDisk) -> None:
        place = self._chance.choice(PLACES)
        disk.arm(place, int(math.exp(self._chance.uniform(0, math.log(MOST_CHANGES[place])))))

    def _key(self, what: object) -> str:
        return f"{self._stage.options.seed}/{self.folder.name}/{self.cuts}/{what}"

    def _use(self, keeper: KeeperProcess, disk: LiveDisk, *, is_armed: bool, is_last: bool) -> list[str]:
        began = time.monotonic()
        keeper.wait_ready(DEAF_READY_S if self._is_deaf else TIMEOUT_S)
        self._ready_s = round(time.monotonic() - began, 2)
        with Client.local(keeper.home.root, retry_for_s=0.0, timeout_s=TIMEOUT_S) as client:
            if self._begun >= 0 and (wrong := self._judge(client)):
                return wrong
            if is_last:
                return []
            if not is_armed:
                self._arm(disk)
            wanted = min(len(self._steps), self._begun + 1 + MOST_STEPS_PER_CUT)
            for number in range(self._done + 1, wanted):
                self._step(client, number)
        return []

    def _judge(self, client: Client) -> list[str]:
        """What was acknowledged is there, and nothing else but what was under way; that can be repeated."""
        found = self._content(client)
        repaired = client.status()["repair"]
        self._repaired, self._known_repair = (repaired if repaired != self._known_repair else None), repaired
        allowed = [self._right[self._done] if self._done >= 0 else NOTHING]
        if self._begun > self._done:
            allowed.append(self._right[self._begun])
        if found not in allowed:
            return [f"after the cut at {self._last}, step {self._done} (begun {self._begun}): {found}, not {allowed}"]
        if self._begun == self._done:
            return []
        self._step(client, self._begun)
        if (found := self._content(client)) != self._right[self._begun]:
            return [f"step {self._begun} was repeated after the cut at {self._last}: {found}, not {self._right[self._begun]}"]
        return []

    def _content(self, client: Client) -> Any:
        version = client.take_snapshot(only_changes=True)["version"]
        try:
            rows = client.query(LOOK, at_least=version, timeout_s=TIMEOUT_S).rows
        except PondkeeperError as error:
            if "does not exist" in str(error):
                return NOTHING
            raise
        return json.loads(json.dumps(rows[0], default=str))

    def _step(self, client: Client, number: int) -> None:
        self._begun = number
        step = self._steps[number]
        if "sql" in step:
            # Why a key: what was not answered is repeated after the cut, whether it was committed or not.
            key = f"{self._stage.options.seed}-{self.folder.name}-{number}"
            outcome = client.execute(step["sql"], timeout_s=TIMEOUT_S, idempotency_key=key)
            self._versions[number] = outcome.version
        elif "backup" in step:
            self._versions[number] = client.backups.now()["version"]
        elif "prune" in step:
            client.backups.prune()
        else:
            client.restore(version=self._versions[step["restore"]])
        self._done = number
        if step.get("look"):
            client.query("SELECT 1", at_least=self._versions[number], timeout_s=TIMEOUT_S)


def play_live(stage: Stage) -> None:
    """Cuts under a keeper that works; then the controls."""
    if (reason := why_no_fuse()) is not None:
        stage.line(skipped=f"no file system of ours can be mounted: {reason}")
        return
    private_mounts()
    wanted = stage.options.of(LONG_CUTS, SHORT_CUTS)
    chance = stage.chance
    told: Counter[str] = Counter()
    made = chains = 0
    while made < wanted and stage.has_time and not stage.violations:
        chains += 1
        count = min(LONG_CHAIN, wanted - made)
        chain = _Chain(stage, f"chain-{chains}", chance, count)
        made += _play_chain(stage, chain, count, told)
        if not stage.violations and not stage.options.keep:
            shutil.rmtree(chain.folder)
    stage.line(summary=True, cuts=made, databases=chains, told=dict(told))
    _control_deaf(stage, chance)
    _control_plain(stage, chance)


def _play_chain(stage: Stage, chain: _Chain, count: int, told: Counter[str]) -> int:
    """So many cuts, and a last start, which judges the last of them; how many there were."""
    for number in range(count + 1):
        is_last = number == count or chain.is_over or (number > 0 and not stage.has_time)
        found = chain.play(is_last=is_last)
        stage.line(chain=chain.folder.name, cut=chain.cuts, **found)
        told["into the start" if found["ready_s"] is None else "at work"] += 1
        if found["repaired"]:
            told["repaired" if found["repaired"]["donor"] else "a WAL was cut"] += 1
        stage.violated([f"{chain.folder.name}: {text}" for text in found["wrong"]])
        if found["wrong"] or is_last:
            break
    return chain.cuts - 1


def _control_deaf(stage: Stage, chance: random.Random) -> None:
    """A disk that says it syncs, and does not, loses what was acknowledged: the judge sees it."""
    found: list[str] = []
    for number in range(CONTROL_ROUNDS):
        chain = _Chain(stage, f"deaf-{number}", chance, 1, is_deaf=True)
        chain.play()
        if chain.has_acknowledged:
            found += chain.play(is_last=True)["wrong"]
        shutil.rmtree(chain.folder)
        if found:
            break
    stage.control("a disk that ignores fsync loses what was acknowledged, or the file", found)


def _control_plain(stage: Stage, chance: random.Random) -> None:
    """DuckDB alone, on a disk that does what it says."""
    found: list[str] = []
    tried = 0
    while tried < CONTROL_ROUNDS and not (found and (stage.options.short or tried >= LONG_CHAIN)):
        tried += 1
        folder = stage.room(f"plain-{tried}")
        found += _play_plain(stage, folder, chance)
        shutil.rmtree(folder)
    stage.control("plain DuckDB loses what it has acknowledged, or the file", found, failed=len(found), tried=tried)


def _begin_plainly(file: Path, steps: list[Step]) -> None:
    with duckdb.connect(str(file)) as connection:
        for statement in (text for step in steps for text in step["sql"]):
            connection.execute(statement)


def _play_plain(stage: Stage, folder: Path, chance: random.Random) -> list[str]:
    steps = [step for step in draw(chance, PLAIN_STEPS) if "sql" in step]
    right, plan, before = expected(steps), folder / "steps.json", folder / "before"
    plan.write_text(json.dumps(steps))
    before.mkdir()
    _begin_plainly(before / "pond.duckdb", steps[:2])
    recoverer = Recoverer()
    with LiveDisk(folder / "disk", before, folder / "after", f"{stage.options.seed}/{folder.name}") as disk:
        place = chance.choice(("file", "wal"))
        disk.arm(place, int(math.exp(chance.uniform(0, math.log(MOST_CHANGES[place])))))
        command = [sys.executable, "-m", "campaigns.plainwork", str(disk.place / "pond.duckdb"), str(plan), "2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=program_environment()) as work:
            disk.kills(work.pid)
            assert work.stdout is not None
            said = [line.split() for line in work.stdout]
        disk.cut()
    done = max([1, *(int(number) for what, number in said if what == "done")])
    begun = max([1, *(int(number) for what, number in said if what == "begin")])
    answer = recoverer.ask(folder / "laid", read_tree(disk.after), plain=True)
    recoverer.close()
    if "error" in answer:
        return [f"cut at {disk.cut_by}: {answer['error']}"]
    is_right = answer["found"] in (right[done], right[begun])
    return [] if is_right else [f"cut at {disk.cut_by}: rows that were acknowledged are missing"]

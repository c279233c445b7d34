"""A disk that is full, again and again: outcomes are told truthfully, reads go on, and all goes on by itself afterwards."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace as changed
from typing import Any

from campaigns.ledger import LOOK, Book, Found
from campaigns.running import Stage, percentile
from campaigns.scene import Scene
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from tests.bad_input.places import MIB, SmallDisk, small_disk_command, why_no_namespaces

LONG_ROUNDS, SHORT_ROUNDS = 40, 3
DISK_BYTES = 64 * MIB
MOST_LEFT_BYTES = 256 * 1024
FULL_FOR_S = 0.6
RESUMES_S = 90.0  # what failed is tried again after 1, 2, 4, 8 … at most 30 seconds
BIG_WRITE = "INSERT INTO filler SELECT md5(random()::VARCHAR) || repeat(md5(random()::VARCHAR), 31) FROM range(300)"


def play(stage: Stage) -> None:
    """Fill the disk under a keeper that is written to, see what everybody is told, free it, prove everything."""
    if (reason := why_no_namespaces()) is not None:
        stage.line(skipped=f"no mounts in a namespace of our own: {reason}")
        return
    folder = stage.room("disk")
    place = stage.room("disk/small")
    with Scene(folder, retry_for_s=0.0, disk=place, under=small_disk_command(place, DISK_BYTES)) as scene:
        _Full(stage, scene, SmallDisk(scene.keeper, place)).play(stage.options.of(LONG_ROUNDS, SHORT_ROUNDS))


class _Full:
    """The rounds on one small disk."""

    def __init__(self, stage: Stage, scene: Scene, disk: SmallDisk) -> None:
        self._stage = stage
        self._scene = scene
        self._disk = disk
        self._chance = stage.chance
        self._resumed_s: list[float] = []
        self._answers: Counter[str] = Counter()

    def play(self, rounds: int) -> None:
        violations: list[str] = []
        made = 0
        with self._scene.connect(0.0) as client:
            version = client.execute("CREATE TABLE filler (s VARCHAR)").version
            client.query("SELECT count(*) FROM entries", at_least=version)  # Why: on a full disk no version comes.
            for number in range(1, rounds + 1):
                if violations or not self._stage.has_time:
                    break
                violations, made = self._one(number, client), number
            self._scene.calm()
            violations += self._scene.look_at_all(client)
            if died := sum(told.errors["worker_died"] for told in self._scene.told.values()):
                violations.append(f"{died} writes were told that the writer died: the disk was full, and nobody knew why")
            self._control(client)
        self._stage.violated(violations)
        if violations:
            self._scene.keep(violations, {"seed": self._stage.options.seed})
        told = list(self._scene.told.values())
        self._stage.line(
            summary=True, rounds=made, commits=self._scene.crowd.commits, answers_when_full=dict(self._answers),
            refused=sum(len(each.refused) for each in told), unknown=sum(len(each.unknown) for each in told),
            errors=dict(sum((each.errors for each in told), Counter())), resumed_max_s=percentile(self._resumed_s, 1.0),
        )  # fmt: skip

    def _one(self, number: int, client: Client) -> list[str]:
        scene, left_bytes = self._scene, self._chance.randint(0, MOST_LEFT_BYTES)
        wrong = [] if scene.crowd.wait_commits(self._chance.randint(1, 30)) else ["the clients get no answers any more"]
        self._disk.fill(left_bytes)
        refused_before = sum(told.errors["disk_full"] for told in scene.told.values())
        wrong += self._use_it_while_full(client)
        refused = sum(told.errors["disk_full"] for told in scene.told.values()) - refused_before
        self._disk.free()
        resumed_s = self._resumes(client)
        self._resumed_s.append(resumed_s)
        wrong += ["writes did not resume by themselves"] if resumed_s > RESUMES_S else scene.look(client)
        client.execute(["DROP TABLE filler", "CREATE TABLE filler (s VARCHAR)"])
        self._stage.line(
            round=number, left_bytes=left_bytes, disk_full_told=refused, resumed_s=round(resumed_s, 3),
            commits=scene.crowd.commits, violations=wrong,
        )  # fmt: skip
        return wrong

    def _use_it_while_full(self, client: Client) -> list[str]:
        """Big writes until one is refused, and a read after each: reads must not notice."""
        wrong, full_at = [], None
        give_up_at = time.monotonic() + 20.0
        while full_at is None or time.monotonic() < full_at + FULL_FOR_S:
            answer = self._told(lambda: client.execute(BIG_WRITE))
            self._answers[answer] += 1
            if answer == "disk_full":
                full_at = full_at or time.monotonic()
            if (read := self._told(lambda: client.query("SELECT count(*) FROM entries"))) != "answered":
                wrong.append(f"a read failed while the disk was full: {read}")
            if time.monotonic() > give_up_at:
                return [*wrong, "the positive control: nobody was told that the disk is full"]
        return wrong

    @staticmethod
    def _told(ask: Any) -> str:
        try:
            ask()
        except PondkeeperError as error:
            return error.code
        return "answered"

    def _resumes(self, client: Client) -> float:
        began = time.monotonic()
        while self._told(lambda: self._scene.probe(client)) != "answered" and time.monotonic() < began + RESUMES_S:
            time.sleep(0.05)
        return time.monotonic() - began

    def _control(self, client: Client) -> None:
        """Were a committed write told to be refused, the look would say so."""
        told = {number: changed(each, refused=set(each.committed[:1])) for number, each in self._scene.told.items()}
        found = Book().judge(Found.of_row(client.query(LOOK, [0]).rows[0]), {}, told)
        self._stage.control("a lie about a refused write", [text for text in found if text.startswith("refused and there")])

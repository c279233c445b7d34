"""Killed in its recovery, again and again: a keeper that dies within its first second loses nothing either.

What a crash leaves behind is made on purpose before: a WAL, a half-made snapshot, the ticket of a dead program, a lease
whose holder is dead, temporary files. Afterwards everything acknowledged is there, and nothing that was left behind is.
"""

from __future__ import annotations

import os
import time

from campaigns.running import Stage, percentile
from campaigns.scene import Scene, ready_again
from campaigns.striker import Striker
from campaigns.victims import VICTIMS
from pondkeeper.client import Client
from pondkeeper.files.locks import is_flocked
from tests.support.keeper import wait_until

LONG_ROUNDS, SHORT_ROUNDS = 30, 5
FIRST_SECOND_S = 1.0
RECOVERING_SHARE = 0.15
BULK = "INSERT INTO bulk SELECT range, md5(range::VARCHAR) FROM range(60000)"
CLEAN_WITHIN_S = 60.0
MOST_PRIVATE_FOLDERS = 2  # a spare, and the one that is being made


def play(stage: Stage) -> None:
    """One scene: a crash that leaves much behind, then the kills, then one start that may live."""
    striker = Striker()
    try:
        with Scene(stage.room("recovery"), loads=True) as scene:
            _Recovery(stage, scene, striker).play(stage.options.of(LONG_ROUNDS, SHORT_ROUNDS))
    finally:
        striker.close()


class _Recovery:
    """The kills of one keeper in its first second."""

    def __init__(self, stage: Stage, scene: Scene, striker: Striker) -> None:
        self._stage = stage
        self._scene = scene
        self._striker = striker

    def play(self, rounds: int) -> None:
        scene = self._scene
        with scene.connect() as client:
            client.execute("CREATE TABLE bulk (i BIGINT, s VARCHAR)")
            self._crash(client)
            left = _left_behind(scene)
            self._stage.control("something was left behind", left)
            chance = self._stage.chance
            lived_s = [
                self._start_and_kill(number, chance.random() * FIRST_SECOND_S)
                for number in range(1, rounds + 1)
                if self._stage.has_time
            ]
            scene.keeper.launch()
            ready_s = ready_again(scene)
            wrong = scene.look(client)
        wrong += self._judge_leftovers()
        wrong += scene.look_at_the_end()
        self._stage.violated(wrong)
        if wrong:
            scene.keep(wrong, {"seed": self._stage.options.seed, "lived_s": lived_s})
        self._stage.line(
            summary=True, rounds=len(lived_s), left_behind=left, lived_p50_s=percentile(lived_s, 0.5),
            ready_s=round(ready_s, 3), commits=scene.crowd.commits, violations=wrong,
        )  # fmt: skip

    def _crash(self, client: Client) -> None:
        """kill -9 of everybody, with everybody in the middle of something."""
        scene = self._scene
        VICTIMS["holder"].strike(scene, self._striker, "ticket", 0.0)
        VICTIMS["copier"].strike(scene, self._striker, "copy", 0.0)
        (scene.keeper.database.snapshots / ".private-left").mkdir(exist_ok=True)
        for _ in range(3):
            client.execute(BULK, timeout_s=30)
        scene.crowd.wait_commits(20)
        self._striker.strike("commit", scene.keeper.pid, 0.0, file=str(scene.keeper.target))
        scene.keeper.process.wait()

    def _start_and_kill(self, number: int, delay_s: float) -> float:
        """A start that dies at a random moment of its first second; every other one when the file is being recovered."""
        scene, began = self._scene, time.monotonic()
        scene.keeper.launch()
        if number % 2:
            time.sleep(delay_s)
        else:
            wait_until(lambda: scene.keeper.children("writer"), timeout_s=60, what="a writer")
            time.sleep(delay_s * RECOVERING_SHARE)
        had_writer = bool(scene.keeper.children("writer"))
        scene.keeper.kill9()
        self._stage.line(
            round=number, delay_s=round(delay_s, 3), had_writer=had_writer,
            wal_bytes=_wal_bytes(scene), commits=scene.crowd.commits,
        )  # fmt: skip
        return time.monotonic() - began

    def _judge_leftovers(self) -> list[str]:
        """What dead processes have left must go by itself, soon."""
        try:
            wait_until(lambda: not _stale(self._scene), timeout_s=CLEAN_WITHIN_S, what="a clean house")
        except AssertionError:
            return _stale(self._scene)
        return []


def _wal_bytes(scene: Scene) -> int:
    """How large the WAL is; 0 where there is none, as the writer of a dead keeper may live on for a moment and fold it."""
    try:
        return scene.keeper.database.wal.stat().st_size
    except FileNotFoundError:
        return 0


def _left_behind(scene: Scene) -> list[str]:
    """What is there that only a crash leaves; the keeper is dead."""
    paths = scene.keeper.database
    wal_bytes = _wal_bytes(scene)
    found = [f"a WAL of {wal_bytes} bytes"] if wal_bytes else []
    found += [f"a half-made snapshot: {path.name}" for path in paths.snapshots.glob(".private-*")]
    found += ["a note about a lease that nobody holds"] if paths.lease_json.exists() else []
    return found


def _stale(scene: Scene) -> list[str]:
    """What should not be there beside a keeper that lives."""
    paths = scene.keeper.database
    wrong = [f"a dead program's ticket: {name}" for name in _tickets(scene) if not is_flocked(paths.tickets / name)]
    private = [path.name for path in paths.snapshots.glob(".private-*")]
    if len(private) > MOST_PRIVATE_FOLDERS or ".private-left" in private:
        wrong.append(f"half-made snapshots: {private}")
    wrong += [f"a temporary file: {path.name}" for path in paths.file.parent.glob(f".{paths.file.name}.*.tmp")]
    if paths.lease_json.exists() and not is_flocked(paths.lease_lock):
        wrong.append("a note about a lease that nobody holds")
    return wrong


def _tickets(scene: Scene) -> list[str]:
    folder = scene.keeper.database.tickets
    return [name for name in os.listdir(folder) if name.endswith(".ticket")] if folder.exists() else []

"""Who is killed in a round, at which moments, and how that one is brought back: one class per kind of victim.

A new kind is a class with `name`, `moments` and `strike`, and a line in VICTIMS; the plan draws from that table.
"""

from __future__ import annotations

import random
from typing import Any, Protocol

from campaigns.scene import Scene
from campaigns.striker import Striker, writer_of
from campaigns.supervised import SupervisedProgram
from tests.support.keeper import wait_until

HOLDER_WRITES = 200
SUPERVISED_WRITES = 30
THERE_WITHIN_S = 60.0


class Victim(Protocol):
    """A process that a round kills."""

    @property
    def name(self) -> str: ...

    @property
    def moments(self) -> tuple[str, ...]: ...

    @property
    def weight(self) -> int: ...

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        """Kill it at that moment, and bring back what does not come back by itself: what the striker said."""


def _places(scene: Scene) -> dict[str, str]:
    paths = scene.keeper.database
    return {
        "file": str(paths.file),
        "snapshots": str(paths.snapshots),
        "lease": str(paths.lease_json),
        "tickets": str(paths.tickets),
    }


class Writer:
    """The process that has the file open. Its successor comes by itself, and recovers."""

    name = "writer"
    moments = ("random", "commit", "checkpoint", "folded", "copy", "successor")
    weight = 52

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        keeper = scene.keeper.pid
        if moment == "successor":
            return striker.strike(moment, keeper, delay_s, **_places(scene))
        pid = wait_until(lambda: writer_of(keeper), timeout_s=THERE_WITHIN_S, what="a writer")
        return striker.strike(moment, pid, delay_s, **_places(scene))


class Keeper:
    """The keeper itself: all its children die with it, and somebody starts it again, as a service manager does."""

    name = "keeper"
    moments = ("random", "commit", "checkpoint", "folded", "copy")
    weight = 8

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        said = striker.strike(moment, scene.keeper.pid, delay_s, **_places(scene))
        scene.keeper.process.wait()
        scene.keeper.launch()
        return said


class Holder:
    """A program that has the lease, or waits for it, and writes the file itself. The kernel frees what it held."""

    name = "holder"
    moments = ("random", "ticket", "lease", "commit", "checkpoint")
    weight = 14

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        assert scene.holders is not None
        before = len(scene.holders.told.committed)
        pid = scene.holders.begin(HOLDER_WRITES)
        if moment not in ("ticket", "lease"):
            scene.holders.wait_leased()
        said = striker.strike(moment, pid, delay_s, **_places(scene))
        scene.holders.finish()
        return {**said, "held_commits": len(scene.holders.told.committed) - before}


class Supervisor:
    """`pondkeeper run` itself. Its program goes on, and has the lease until its own end: the kernel sees to it."""

    name = "supervisor"
    moments = ("random", "ticket", "lease", "commit", "checkpoint")
    weight = 4

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        assert scene.holders is not None
        told = scene.holders.told
        before = len(told.committed)
        program = SupervisedProgram(scene.keeper.target, scene.keeper.home.root, told, SUPERVISED_WRITES)
        if moment not in ("ticket", "lease"):
            program.wait_begun()
        said = striker.strike(moment, program.pid, delay_s, **_places(scene))
        scene.wrong += program.finish()
        return {**said, "held_commits": len(told.committed) - before}


class Relay:
    """The writer, while a program waits for the lease: it opens what the dead one left, writes, and is killed in turn.

    Why: two crashes without a checkpoint between them are what 1.5 loses index entries by.
    """

    name = "writer and then holder"
    moments = ("commit", "random")
    weight = 6

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        assert scene.holders is not None
        writer = wait_until(lambda: writer_of(scene.keeper.pid), timeout_s=THERE_WITHIN_S, what="a writer")
        before = len(scene.holders.told.committed)
        holder = scene.holders.begin(HOLDER_WRITES)
        said = striker.strike(moment, writer, 0.0, **_places(scene))
        scene.holders.wait_leased()
        then = striker.strike("random", holder, delay_s, **_places(scene))
        scene.holders.finish()
        killed = said["killed"] and then["killed"]
        return {**said, "killed": killed, "held_commits": len(scene.holders.told.committed) - before}


class Copier:
    """The process that makes snapshots. Commits go on without it; its successor removes what it left half-made."""

    name = "copier"
    moments = ("random", "copy", "folded")
    weight = 4

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        pid = wait_until(lambda: scene.keeper.children("copier"), timeout_s=THERE_WITHIN_S, what="a copier")[0]
        return striker.strike(moment, pid, delay_s, **_places(scene))


class SpoolingClient:
    """A program that sends rows, some into the spool. What it was told is true; what it was not told may be there or not."""

    name = "spooling client"
    moments = ("random", "commit")
    weight = 8

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        assert scene.spooler is not None
        said = striker.strike(moment, scene.spooler.pid, delay_s, **_places(scene))
        scene.spooler.wait_gone()
        scene.spooler.begin()
        return said


class Stager:
    """The process that makes rows of a body. Its successor begins the body anew; nothing of it was in the database."""

    name = "stager"
    moments = ("random", "commit")
    weight = 8

    def strike(self, scene: Scene, striker: Striker, moment: str, delay_s: float) -> dict[str, Any]:
        pid = wait_until(lambda: scene.keeper.children("stager"), timeout_s=THERE_WITHIN_S, what="a stager")[0]
        return striker.strike(moment, pid, delay_s, **_places(scene))


_ALL: tuple[Victim, ...] = (
    Writer(), Keeper(), Holder(), Supervisor(), Relay(), Copier(), SpoolingClient(), Stager(),
)  # fmt: skip
VICTIMS: dict[str, Victim] = {victim.name: victim for victim in _ALL}


def draw(chance: random.Random) -> tuple[str, str]:
    """A victim and a moment, by weight."""
    name = chance.choices(list(VICTIMS), [victim.weight for victim in VICTIMS.values()])[0]
    return name, chance.choice(VICTIMS[name].moments)

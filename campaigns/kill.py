"""kill -9 under load: of writer, keeper, holder of the lease, `pondkeeper run`, copier, stager and a client that spools; at random and named moments.

After each kill (in the short form after each volley of five, the next while all recovers from the last): a new write is
acknowledged (how soon is measured), and a look proves that nothing acknowledged is lost, nothing is applied twice, nothing half,
and each client's order is kept. The clients never pause for it.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from campaigns import killcontrols
from campaigns.running import Options, Stage, percentile
from campaigns.scene import Scene, ready_again
from campaigns.striker import Striker
from campaigns.victims import VICTIMS, draw

LONG_ROUNDS, SHORT_ROUNDS = 2_000, 200
READY_S = 2.0
ABSURDLY_LATE_S = 45.0  # far above the bar: a keeper's start takes seconds of a busy machine, and that is no finding
MOST_COMMITS_BETWEEN = 12
VOLLEY = 5  # kills of the short form from one look to the next: half of a round's time is the look, and the waits around it
LONGEST_DELAY_S = 0.03
# Why two: most of what happens at a moment happens within a millisecond of it.
NEAR_S = 0.001


@dataclass(frozen=True)
class Round:
    """What one round does, drawn from the seed before anything runs."""

    round: int
    victim: str
    moment: str
    delay_s: float
    commits_before: int

    def to_json(self) -> str:
        """A line of the plan."""
        return json.dumps(asdict(self))


def plan(options: Options) -> list[Round]:
    """All rounds; the same for the same seed."""
    chance = random.Random(f"{options.seed}/kill")
    return [_draw(number, chance) for number in range(1, options.of(LONG_ROUNDS, SHORT_ROUNDS) + 1)]


def _draw(number: int, chance: random.Random) -> Round:
    victim, moment = draw(chance)
    longest_s = LONGEST_DELAY_S if moment in ("random", "successor") or chance.random() < 0.3 else NEAR_S
    return Round(number, victim, moment, round(chance.random() * longest_s, 6), chance.randint(1, MOST_COMMITS_BETWEEN))


def play(stage: Stage) -> None:
    """The controls first: a campaign that cannot see a planted fault need not be played."""
    killcontrols.play(stage)
    striker = Striker()
    try:
        with Scene(stage.room("kills"), loads=True) as scene:
            _Kills(stage, scene, striker).play(plan(stage.options))
    finally:
        striker.close()


class _Kills:
    """The rounds on one scene, and what they add up to."""

    def __init__(self, stage: Stage, scene: Scene, striker: Striker) -> None:
        self._stage = stage
        self._scene = scene
        self._striker = striker
        self._ready_s: dict[str, list[float]] = {name: [] for name in VICTIMS}
        self._seen: Counter[str] = Counter()
        self._killed = 0
        self._volley = VOLLEY if stage.options.short else 1

    def play(self, rounds: list[Round]) -> None:
        """All rounds, then the whole file; a violation ends the rounds, so that the evidence stays as it is."""
        violations: list[str] = []
        made = 0
        for planned in rounds:
            if violations or not self._stage.has_time:
                break
            is_looked_at = planned.round % self._volley == 0 or planned is rounds[-1]
            violations, made = self._one(planned) if is_looked_at else self._one_of_a_volley(planned), planned.round
        violations += self._scene.look_at_the_end()
        self._stage.violated(violations)
        if violations:
            self._scene.keep(violations, {"seed": self._stage.options.seed})
        self._sum_up(made)

    def _one(self, planned: Round) -> list[str]:
        scene = self._scene
        began = time.monotonic()
        goes_on = scene.crowd.wait_commits(planned.commits_before)
        said, ready_s = self._strike(planned)
        wrong = scene.look_patiently()
        if not goes_on:
            wrong.append("the clients get no answers any more")
        if ready_s > ABSURDLY_LATE_S:
            wrong.append(f"ready again only after {ready_s:.1f} s")
        self._stage.line(
            **asdict(planned), **said, ready_s=round(ready_s, 3), took_s=round(time.monotonic() - began, 3),
            commits=scene.crowd.commits, violations=wrong,
        )  # fmt: skip
        return wrong

    def _one_of_a_volley(self, planned: Round) -> list[str]:
        """Only the kill: the next one comes at once, perhaps into the recovery from this one; the last of them is looked at."""
        began = time.monotonic()
        said = self._kill(planned)
        self._stage.line(**asdict(planned), **said, took_s=round(time.monotonic() - began, 3), commits=self._scene.crowd.commits)
        return []

    def _strike(self, planned: Round) -> tuple[dict[str, Any], float]:
        said = self._kill(planned)
        ready_s = ready_again(self._scene)
        if said["killed"]:
            self._ready_s[planned.victim].append(ready_s)
        return said, ready_s

    def _kill(self, planned: Round) -> dict[str, Any]:
        said = VICTIMS[planned.victim].strike(self._scene, self._striker, planned.moment, planned.delay_s)
        if said["killed"]:
            self._killed += 1
            self._seen[f"{planned.victim}/{planned.moment}"] += bool(said["seen"])
        return said

    def _loads(self) -> dict[str, Any]:
        assert self._scene.spooler is not None
        told = self._scene.spooler.told
        counts = {name: len(getattr(told, name)) for name in ("accepted", "committed", "refused", "unknown")}
        return {**counts, "errors": dict(told.errors)}

    def _sum_up(self, rounds: int) -> None:
        everything = [value for values in self._ready_s.values() for value in values]
        told = list(self._scene.crowd.told.values())
        holders = self._scene.holders
        self._stage.line(
            summary=True,
            rounds=rounds,
            killed=self._killed,
            commits=sum(len(each.committed) for each in told),
            loads=self._loads(),
            commits_of_holders=len(holders.told.committed) if holders else 0,
            refused=sum(len(each.refused) for each in told),
            unknown=sum(len(each.unknown) for each in told),
            errors=dict(sum((each.errors for each in told), Counter())),
            reads=self._scene.reads,
            ready_p50_s=percentile(everything, 0.5),
            ready_p99_s=percentile(everything, 0.99),
            ready_max_s=percentile(everything, 1.0),
            within_the_bar=sum(value <= READY_S for value in everything),
            ready_p99_s_by_victim={name: percentile(values, 0.99) for name, values in self._ready_s.items()},
            moments_seen=dict(sorted(self._seen.items())),
        )
        if self._killed < rounds * 0.7:
            self._stage.violated([f"only {self._killed} of {rounds} rounds killed somebody"])

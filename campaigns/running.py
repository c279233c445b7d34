"""The frame of every campaign: a seed, a line of JSON per round on stdout, violations, artefacts that stay on failure."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VIOLATED = 1
SHOWN = 20


@dataclass(frozen=True)
class Options:
    """What was asked for. `rounds` and `operations` are None where each part decides by `short`.

    `budget_s` is for each part that plays rounds: it begins no round after that, and says in its summary how many it has made.
    """

    seed: int
    short: bool = False
    rounds: int | None = None
    operations: int | None = None
    budget_s: float | None = None
    keep: bool = False
    work: Path | None = None

    def of(self, long: int, short: int) -> int:
        """How many rounds a part makes."""
        return self.rounds if self.rounds is not None else (short if self.short else long)


@dataclass
class Stage:
    """One part of a campaign on its way: its folder, its chance, what it found."""

    part: str
    options: Options
    folder: Path
    violations: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def has_time(self) -> bool:
        """Whether another round may begin."""
        budget_s = self.options.budget_s
        return budget_s is None or time.monotonic() - self.began < budget_s

    @property
    def chance(self) -> random.Random:
        """The part's randomness, from the start: the same seed draws the same plan, whichever parts run beside it."""
        return random.Random(f"{self.options.seed}/{self.part}")

    def line(self, **fields: Any) -> None:
        """A line of JSON on stdout: what one round did and found."""
        print(json.dumps({"part": self.part, **fields}, default=str), flush=True)

    def say(self, text: str) -> None:
        """Narration on stderr."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {self.part}: {text}", file=sys.stderr, flush=True)

    def violated(self, found: list[str]) -> None:
        """Note what must never happen; the campaign goes on, and ends with an exit code other than 0."""
        for text in dict.fromkeys(found):
            self.say(f"VIOLATION: {text}")
            self.violations.append(text)

    def control(self, name: str, found: list[str], **fields: Any) -> None:
        """A planted fault was, or was not, found; a campaign that misses one proves nothing by finding nothing."""
        self.line(control=name, found=bool(found), example=found[0] if found else None, **fields)
        if not found:
            self.violated([f"the positive control {name!r} was not found: this campaign is blind"])

    def room(self, name: str) -> Path:
        """A new folder of the part's own."""
        place = self.folder / name
        place.mkdir(parents=True)
        return place


Part = Callable[[Stage], None]


def play(parts: dict[str, Part], options: Options) -> int:
    """Play the parts one after the other; the exit code. Folders of parts with violations stay."""
    root = Path(tempfile.mkdtemp(prefix="pondkeeper-campaign-", dir=options.work)).resolve()
    violations = 0
    try:
        for name, part in parts.items():
            violations += len(_play_one(name, part, options, root).violations)
    finally:
        if not any(root.iterdir()):
            root.rmdir()
    return VIOLATED if violations else 0


def _play_one(name: str, part: Part, options: Options, root: Path) -> Stage:
    stage = Stage(name, options, root / name)
    stage.folder.mkdir()
    stage.say(f"begins with seed {options.seed}")
    try:
        part(stage)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # noqa: BLE001  Why: a part that breaks is a finding; the others still have their say.
        stage.violated([f"the part broke off: {type(error).__name__}: {error}"])
    seconds = round(time.monotonic() - stage.began, 1)
    keeps = options.keep or bool(stage.violations)
    artefacts = str(stage.folder) if keeps else None
    stage.line(over=True, seed=options.seed, violations=stage.violations[:SHOWN], seconds=seconds, artefacts=artefacts)
    if not keeps:
        shutil.rmtree(stage.folder, ignore_errors=True)
    return stage


def percentile(values: list[float], share: float) -> float | None:
    """The nearest-rank percentile of what was measured; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))], 3)

"""Bombs: when each ends, what the keeper keeps of it, and what other clients notice; and of a herd of 2,000 clients.

The bombs are those of `script/campaign bombs`, thrown one at a time with a deadline of a second, memory of 256 MiB, temp
space of 64 MiB, and answers of at most 16 MiB and a million rows. A client of another key asks something small meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, at_most, percentile, ratio_at_most
from benchmarks.running import Run, run
from campaigns.arsenal import arsenal
from campaigns.corpus import (
    KEEPER_MAY_GROW_BYTES,
    MIB,
    is_well_ended,
    keeping,
    new_key,
    quiet_latencies_s,
    settled,
    throw_all,
)
from campaigns.herd import flood, quiet_keys
from campaigns.throwing import Target
from campaigns.vitals import QuietClient, Vitals

TIMEOUT_S = 1.0
ENDS_WITHIN_S = TIMEOUT_S + 0.5
QUIET_KEYS = 4
HERD, HERD_S = 2000, 20.0
WARM_UP = 30


def measure(this: Run) -> None:
    """The bombs one by one, then the herd."""
    with tempfile.TemporaryDirectory(dir=this.work) as folder:
        (bombs := Path(folder) / "bombs").mkdir()
        _bombs(this, bombs)
        (herd := Path(folder) / "herd").mkdir()
        _herd(this, herd)


def _bombs(this: Run, folder: Path) -> None:
    bombs = [bomb for bomb in arsenal() if bomb.reads_bytes_per_s is None]
    bombs = bombs[::4] if this.short else bombs
    with keeping(folder, TIMEOUT_S, 4) as (keeper, thrower, quiet_key):
        alone = quiet_latencies_s(keeper, quiet_key, 3.0 if this.short else 15.0)
        before = Vitals.of(keeper)
        with QuietClient(keeper.port, quiet_key) as quiet:
            for bomb, end in throw_all(Target(keeper.port, thrower), bombs, throwers=1):
                note = f"{end.how}{'' if is_well_ended(bomb, end) else ' (NOT as it must)'}"
                # Why not: how long a refused body takes to be sent is its client's time.
                bar = at_most(ENDS_WITHIN_S) if end.how != "body_too_large" else None
                this.add(Figure(bomb.name, end.after_s, "s", bar=bar, note=note))
        leaks = settled(keeper, before)
        grew = (Vitals.of(keeper).rss_bytes - before.rss_bytes) / MIB
    refused = sum(status != 200 for status in quiet.outcomes)
    note = f"{len(quiet.outcomes)} small queries of another key, {refused} not answered; leaks: {leaks or 'none'}"
    beside = quiet.latencies_s[WARM_UP:]
    this.add(
        Figure("the keeper's memory grew by", grew, "MiB", bar=at_most(KEEPER_MAY_GROW_BYTES / MIB)),
        _ratio("others beside the bombs, p99", beside, alone, 2.0, note),
    )
    this.say(note)


def _herd(this: Run, folder: Path) -> None:
    clients, seconds = (300, 4.0) if this.short else (HERD, HERD_S)
    with keeping(folder, 5.0, 4) as (keeper, flooding, _):
        keys = [new_key(keeper, f"quiet-{number}", "reader") for number in range(QUIET_KEYS)]
        alone, _ = quiet_keys(keeper, keys, lambda: time.sleep(seconds))
        told: dict[str, Any] = {}
        beside, outcomes = quiet_keys(keeper, keys, lambda: told.update(flood(keeper, flooding, clients, seconds)))
    note = f"{told}; quiet keys: {len(outcomes)} answers, {sum(status != 200 for status in outcomes)} not 200"
    this.say(note)
    this.add(
        _ratio(f"{QUIET_KEYS} quiet keys beside {clients} clients of one key, p99", beside, alone, 3.0, note),
        Figure("the slowest answer to one of the herd", told["slowest_s"], "s", note="its deadline is 5 s"),
    )


def _ratio(name: str, beside_s: list[float], alone_s: list[float], bar: float, note: str) -> Figure:
    beside, alone = percentile(beside_s, 0.99) * 1000, percentile(alone_s, 0.99) * 1000
    return Figure(name, beside, "ms", "quiet", alone, ratio_at_most(bar), note)


if __name__ == "__main__":
    sys.exit(run("bombs", __doc__, measure, budget_s=420, short_budget_s=120))

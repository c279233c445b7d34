"""Readers killed by the thousand: each by a query that does not hear its interrupt. Afterwards the house is as it was."""

from __future__ import annotations

import threading
import time
from collections import Counter

from campaigns.arsenal import TIME, Bomb
from campaigns.corpus import KEEPER_MAY_GROW_BYTES, MIB, keeping, settled
from campaigns.running import Stage, percentile
from campaigns.throwing import Target
from campaigns.vitals import QuietClient, Vitals
from tests.support.keeper import KeeperProcess, wait_until

LONG_KILLS, SHORT_KILLS = 2000, 100
WARM_KILLS = 20
THROWERS = 3
READERS = 4
DEAF_SQL = "SELECT levenshtein(repeat(chr(97 + (n % 20)::INTEGER), 60000), repeat('zy', 30000)) FROM range(3, 4) AS r(n)"
DEAF = Bomb("deaf", lambda: DEAF_SQL, (TIME, "worker_died", "readers_busy"), timeout_s=0.05)


def play(stage: Stage) -> None:
    """Kill them, some at a time, and look at what is left; then leave something behind on purpose."""
    kills = stage.options.of(LONG_KILLS, SHORT_KILLS)
    with keeping(stage.room("deaths"), 5.0, READERS, PONDKEEPER_READERS_KILL_AFTER_S="0.02") as (keeper, thrower, quiet_key):
        target = Target(keeper.port, thrower)
        _kill(keeper, target, WARM_KILLS)
        wait_until(lambda: len(keeper.children("reader")) == READERS, what="readers in the place of the killed")
        stage.violated(settled(keeper, Vitals.of(keeper)))
        before, began = Vitals.of(keeper), time.monotonic()
        with QuietClient(keeper.port, quiet_key) as quiet:
            ends, killed = _kill(keeper, target, kills)
        seconds = time.monotonic() - began
        leaks = settled(keeper, before)
        after = Vitals.of(keeper)
        wrong = leaks + [f"a deaf query ended as {how!r}" for how in ends if how not in DEAF.ends]
        wrong += [f"a small query of another key was answered with {status}" for status in set(quiet.outcomes) - {200}]
        stage.violated(wrong)
        stage.line(
            summary=True, kills=killed, seconds=round(seconds, 1), ends=dict(ends), leaks=leaks,
            keeper_grew_mib=round((after.rss_bytes - before.rss_bytes) / MIB, 1), before=str(before), after=str(after),
            others=len(quiet.outcomes), others_p99_ms=round(1000 * (percentile(quiet.latencies_s, 0.99) or 0.0), 1),
        )  # fmt: skip
        stage.control("what is left behind is seen", _left_behind(keeper))


def _kill(keeper: KeeperProcess, target: Target, kills: int) -> tuple[Counter[str], int]:
    """Throw deaf queries until so many readers have died; how they ended, and how many died."""
    ends: Counter[str] = Counter()
    began = _deaths(keeper)
    is_over = threading.Event()

    def throw() -> None:
        while not is_over.is_set():
            ends[target.throw(DEAF).how] += 1

    threads = [threading.Thread(target=throw, name=f"thrower {n}") for n in range(THROWERS)]
    for thread in threads:
        thread.start()
    try:
        while (killed := _deaths(keeper) - began) < kills:
            time.sleep(0.2)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    return ends, killed


def _deaths(keeper: KeeperProcess) -> int:
    return keeper.log().count('"reader ended"')


def _left_behind(keeper: KeeperProcess) -> list[str]:
    """Positive control: a temp file and a folder that nobody removes are found."""
    before = Vitals.of(keeper)
    folder = keeper.home.temp / "reader-left-behind"
    folder.mkdir()
    (folder / "duckdb_temp_storage").write_bytes(b"x" * 4096)
    try:
        return Vitals.of(keeper).leaks_since(before, most_bytes=KEEPER_MAY_GROW_BYTES)
    finally:
        (folder / "duckdb_temp_storage").unlink()
        folder.rmdir()

"""Every bomb of the arsenal, several at a time, beside a client that asks little: each ends at its limit, and nothing stays."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campaigns.arsenal import BROKEN, SETUP, TIME, Bomb, arsenal
from campaigns.running import Stage, percentile
from campaigns.throwing import End, Target
from campaigns.vitals import QuietClient, Vitals
from pondkeeper.client import Client
from tests.support.keeper import KeeperProcess, wait_until

MIB = 1 << 20
READERS = 3
THROWERS = 2
LONG_TIMEOUT_S, SHORT_TIMEOUT_S = 3.0, 0.6
KEEPER_MAY_GROW_BYTES = 64 * MIB
LATE_S = 30.0
SHORT_TIMES = 10.0
WARM_UP = 40
QUIET_S, SHORT_QUIET_S = 10.0, 2.0


@contextmanager
def keeping(folder: Path, timeout_s: float, readers: int = READERS, **environment: str) -> Iterator[tuple[KeeperProcess, str, str]]:
    """A keeper with small limits, the key of who throws, and that of a quiet client."""
    settings = {
        "PONDKEEPER_READERS_TIMEOUT_S": f"{timeout_s:g}",
        "PONDKEEPER_READERS_MAX_BYTES": "16MiB",
        "PONDKEEPER_READERS_MAX_ROWS": "1000000",
        "PONDKEEPER_READERS_TEMP_LIMIT_BYTES": "64MiB",
        "PONDKEEPER_WRITER_TIMEOUT_S": f"{timeout_s:g}",
        "PONDKEEPER_WRITER_MEMORY_LIMIT_BYTES": "256MiB",
        "PONDKEEPER_WRITER_TEMP_LIMIT_BYTES": "64MiB",
        "PONDKEEPER_LIMITS_MAX_STATEMENT_BYTES": "12MiB",
        **environment,
    }
    keeper = KeeperProcess(
        folder / "pond.duckdb", "--readers", str(readers), "--memory-limit", "256MiB", "--threads", "2", environment=settings
    )
    with keeper:
        client = keeper.client()
        version = max(client.execute(statement, timeout_s=60).version for statement in SETUP)
        client.query("SELECT 1", at_least=version)
        yield keeper, new_key(keeper, "thrower", "writer"), new_key(keeper, "quiet", "reader")


def new_key(keeper: KeeperProcess, name: str, role: str) -> str:
    """The token of a key made for it."""
    with keeper.http() as http:
        made = http.post("/v1/keys", json={"name": name, "role": role})
        made.raise_for_status()
        return str(made.json()["token"])


def throw_all(target: Target, bombs: list[Bomb], throwers: int = THROWERS) -> Iterator[tuple[Bomb, End]]:
    """Throw them, some at a time; each as it ends."""
    waiting: queue.SimpleQueue[Bomb] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[Bomb, End]] = queue.SimpleQueue()
    for bomb in bombs:
        waiting.put(bomb)

    def throw() -> None:
        while True:
            try:
                bomb = waiting.get_nowait()
            except queue.Empty:
                return
            ended.put((bomb, target.throw(bomb)))

    threads = [threading.Thread(target=throw, name=f"thrower {n}") for n in range(throwers)]
    for thread in threads:
        thread.start()
    for _ in bombs:
        yield ended.get()
    for thread in threads:
        thread.join()


def is_well_ended(bomb: Bomb, end: End) -> bool:
    """Whether it ended in one of the ways in which it must, and in time; a deadline breaks off an answer that has begun."""
    ends = {*bomb.ends, BROKEN} if TIME in bomb.ends else set(bomb.ends)
    return end.how in ends and end.after_s < LATE_S


def settled(keeper: KeeperProcess, before: Vitals) -> list[str]:
    """What has leaked: waits a while for what goes by itself."""
    client = keeper.client()  # Why one: each has a connection of its own, which is a descriptor of the keeper
    try:
        wait_until(lambda: not _leaks(keeper, client, before), timeout_s=20, what="order")
    except AssertionError:
        return _leaks(keeper, client, before)
    return []


def _leaks(keeper: KeeperProcess, client: Client, before: Vitals) -> list[str]:
    leaks = Vitals.of(keeper).leaks_since(before, most_bytes=KEEPER_MAY_GROW_BYTES)
    return leaks + [f"still listed: {entry['sql'][:60]}" for entry in client.queries()]


def play(stage: Stage) -> None:
    """Throw all of them in a random order, with a quiet client before and beside them."""
    bombs = list(arsenal())
    stage.chance.shuffle(bombs)
    timeout_s = SHORT_TIMEOUT_S if stage.options.short else LONG_TIMEOUT_S
    with keeping(stage.room("corpus"), timeout_s) as (keeper, thrower, quiet_key):
        keeper.client().query("SELECT 1")
        quiet_before = quiet_latencies_s(keeper, quiet_key, SHORT_QUIET_S if stage.options.short else QUIET_S)
        before = Vitals.of(keeper)
        ends: dict[str, int] = {}
        with QuietClient(keeper.port, quiet_key) as quiet:
            for bomb, end in throw_all(Target(keeper.port, thrower), bombs):
                well = is_well_ended(bomb, end)
                stage.line(
                    bomb=bomb.name, door=bomb.door, ended=end.how, must=bomb.ends[0], after_s=round(end.after_s, 2), well=well,
                    message=end.message[:120],
                )  # fmt: skip
                ends[end.how] = ends.get(end.how, 0) + 1
                if not well:
                    stage.violated([f"{bomb.name!r} ended as {end.how!r} after {end.after_s:.1f} s: {end.message}"])
        leaks = settled(keeper, before)
        _say_of_others(stage, quiet_before, quiet, leaks, ends, Vitals.of(keeper).rss_bytes - before.rss_bytes)
    stage.control("a bomb that no limit ends is seen", _unlimited(stage))


def quiet_latencies_s(keeper: KeeperProcess, key: str, seconds: float) -> list[float]:
    """What a client that asks little sees of a keeper that nobody else asks."""
    with QuietClient(keeper.port, key) as quiet:
        time.sleep(seconds)
    return quiet.latencies_s[min(WARM_UP, len(quiet.latencies_s) // 4) :]


def _say_of_others(
    stage: Stage, before: list[float], quiet: QuietClient, leaks: list[str], ends: dict[str, int], grew_bytes: int
) -> None:
    alone_s, beside_s = percentile(before, 0.99) or 0.0, percentile(quiet.latencies_s, 0.99) or 0.0
    refused = [status for status in quiet.outcomes if status != 200]
    stage.line(
        summary=True, ends=dict(sorted(ends.items())), keeper_grew_mib=round(grew_bytes / MIB, 1), leaks=leaks,
        others_p99_ms=round(beside_s * 1000, 1), quiet_p99_ms=round(alone_s * 1000, 1), others=len(quiet.outcomes),
        others_refused=len(refused),
    )  # fmt: skip
    wrong: list[Any] = [*leaks]
    if refused:
        wrong.append(f"{len(refused)} of {len(quiet.outcomes)} small queries of another key were not answered: {set(refused)}")
    if beside_s > SHORT_TIMES * alone_s + 0.5:
        wrong.append(f"the p99 of others was {beside_s * 1000:.0f} ms, and {alone_s * 1000:.0f} ms on a quiet keeper")
    stage.violated(wrong)


def _unlimited(stage: Stage) -> list[str]:
    """Positive control: on a keeper whose limits are far away a bomb does not end as it must, and that is found."""
    bomb = next(bomb for bomb in arsenal() if bomb.name == "an endless NDJSON of small rows")
    finite = Bomb(bomb.name, lambda: "SELECT i FROM range(1100000) AS r(i)", bomb.ends, format=bomb.format)
    with keeping(stage.room("unlimited"), 60.0, PONDKEEPER_READERS_MAX_ROWS="1000000000") as (keeper, thrower, _):
        end = Target(keeper.port, thrower).throw(finite)
    return [] if is_well_ended(finite, end) else [f"{finite.name}: {end.how}"]

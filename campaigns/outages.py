"""The archive cannot be written for an hour: its bucket does not answer, or its disk is full.

Reads and writes go on, the keeper says that the archive is behind, nothing grows with the time, and when the place is back
the archive catches up by itself: its newest version is what the writer had.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from campaigns.archivers import CAUGHT_UP_S, restored
from campaigns.points import Writer, look
from campaigns.running import Stage, percentile
from campaigns.vitals import MIB, Vitals
from pondkeeper.archive.history import newest
from pondkeeper.archive.opening import open_archive
from pondkeeper.errors import PondkeeperError
from tests.bad_input.places import SmallDisk, small_disk_command, why_no_namespaces
from tests.support.keeper import KeeperProcess, keepers, wait_until
from tests.support.s3 import environment, free_port, s3_server

LONG_S, SHORT_S = 3600, 3
LONG_PAUSES_S, SHORT_PAUSES_S = (0.1, 0.5, 1.0), (0.0, 0.02, 0.1)
SETTINGS = {"PONDKEEPER_ARCHIVE_INTERVAL_S": "0.2", "PONDKEEPER_ARCHIVE_MAX_LAG_S": "1", "PONDKEEPER_ARCHIVE_VERIFY_EVERY_S": "0"}
DISK_BYTES = 512 * MIB
KEEPER_MAY_GROW_BYTES = 64 * MIB
COPIES = 8  # of the database that a home may hold: kept snapshots, those that are open, the spare, one that is made
MORE_DESCRIPTORS = 16  # those of children that come and go
LOOK_EVERY_S = 0.2


@dataclass
class Place:
    """Where the archive is: how the keeper names it and how we do, and how it goes away and comes back."""

    target: str
    seen_from_here: Callable[[], str]
    go_away: Callable[[], None]
    come_back: Callable[[], None]


def play_bucket(stage: Stage) -> None:
    """An S3 server that is stopped."""
    room, port, up = stage.room("bucket"), free_port(), ExitStack()
    os.environ.update(environment(port))
    bucket = up.enter_context(s3_server(room / "s3", port))
    place = Place(bucket.target, lambda: bucket.target, up.close, lambda: _forget(up.enter_context(s3_server(room / "s3", port))))
    keeper = KeeperProcess(room / "pond.duckdb", "--archive", place.target, environment=SETTINGS | environment(port))
    with up:
        _play(stage, room, keeper, place)


def play_full(stage: Stage) -> None:
    """A disk of the archive's own that is filled to the last byte."""
    if (reason := why_no_namespaces()) is not None:
        stage.line(skipped=f"no mounts in a namespace of our own: {reason}")
        return
    room, small = stage.room("full"), stage.room("full/small")
    target = str(small / "archive")
    keeper = KeeperProcess(
        room / "pond.duckdb", "--archive", target, environment=SETTINGS, under=small_disk_command(small, DISK_BYTES)
    )
    place = Place(
        target, lambda: f"/proc/{keeper.pid}/root{target}", lambda: SmallDisk(keeper, small).fill(), lambda: SmallDisk(keeper, small).free()
    )
    _play(stage, room, keeper, place)


def _forget(_: object) -> None:
    """What a callback returns is nobody's."""


def _play(stage: Stage, room: Path, keeper: KeeperProcess, place: Place) -> None:
    seconds = float(stage.options.of(LONG_S, SHORT_S))
    pauses_s = SHORT_PAUSES_S if stage.options.short else LONG_PAUSES_S
    with keepers(keeper):
        keeper.start()
        with Writer(keeper, stage.chance, pauses_s) as writer:
            wait_until(lambda: _archived(keeper) >= 3 or writer.failure, timeout_s=CAUGHT_UP_S, what="versions in the archive")
            place.go_away()
            missed = writer.commits[-1][0]  # Why not before: filling a disk takes as long as several commits.
            latencies_s = _watched(stage, keeper, writer, seconds)
            stage.control("the archive lacked what was committed meanwhile", _lag(keeper, missed, writer))
            place.come_back()
            began = time.monotonic()
            wanted = writer.commits[-1][0]
            wait_until(lambda: _archived(keeper) >= wanted or writer.failure, timeout_s=CAUGHT_UP_S, what="the archive to catch up")
            caught_up_s = time.monotonic() - began
            wait_until(lambda: not _status(keeper)["is_behind"], timeout_s=CAUGHT_UP_S, what="the end of the alarm")
        with open_archive(place.seen_from_here(), make=False) as archive:
            found = newest(archive.store, "pond")
            assert found is not None, "it has caught up"
            digest = look(restored(archive, found, room))
        stage.violated([writer.failure] if writer.failure else [])
        stage.violated([] if digest in writer.allowed(found.version) else [f"version {found.version} is not what the writer had"])
    stage.line(
        summary=True, away_s=seconds, commits=len(writer.commits) - 1, reads=len(latencies_s), read_p99_s=percentile(latencies_s, 0.99),
        caught_up_s=round(caught_up_s, 2),
    )  # fmt: skip


def _watched(stage: Stage, keeper: KeeperProcess, writer: Writer, seconds: float) -> list[float]:
    """The time of the outage: somebody reads, commits are made until the end, nothing grows, and the alarm is raised; how long reads took."""
    latencies_s: list[float] = []
    wrong, ends_at, commits, was_behind = [], time.monotonic() + seconds, len(writer.commits), False
    with keeper.client(retry_for_s=0.0) as client:
        client.query("SELECT 1")
        before = Vitals.of(keeper)
        while time.monotonic() < ends_at and not writer.failure:
            began = time.monotonic()
            try:
                client.query("SELECT 1")
            except PondkeeperError as error:
                wrong.append(f"a read failed: {error.code}")
            latencies_s.append(time.monotonic() - began)
            was_behind = was_behind or bool(_status(keeper)["is_behind"])
            if len(latencies_s) % 250 == 0:
                stage.line(reads=len(latencies_s), commits=len(writer.commits), grew=_growth(keeper, before), **_sizes(keeper))
            time.sleep(LOOK_EVERY_S)
    wrong += _growth(keeper, before)
    if len(writer.commits) < commits + seconds / 4:
        wrong.append(f"only {len(writer.commits) - commits} commits in {seconds:g} s")
    if not was_behind:
        wrong.append("nobody was told that the archive is behind")
    stage.violated(wrong)
    return latencies_s


def _growth(keeper: KeeperProcess, before: Vitals) -> list[str]:
    """What has grown that must not."""
    wrong, now, sizes = [], Vitals.of(keeper), _sizes(keeper)
    if now.rss_bytes - before.rss_bytes > KEEPER_MAY_GROW_BYTES:
        wrong.append(f"the keeper grew by {(now.rss_bytes - before.rss_bytes) / MIB:.0f} MiB")
    if now.descriptors > before.descriptors + MORE_DESCRIPTORS:
        wrong.append(f"{before.descriptors} descriptors became {now.descriptors}")
    if sizes["home_bytes"] > COPIES * sizes["file_bytes"] + 64 * MIB:
        wrong.append(f"the home has {sizes['home_bytes'] / MIB:.0f} MiB, the database {sizes['file_bytes'] / MIB:.0f}")
    return wrong


def _sizes(keeper: KeeperProcess) -> dict[str, int]:
    return {"home_bytes": sum(map(_size, keeper.home.root.rglob("*"))), "file_bytes": _size(keeper.target)}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0  # it has gone meanwhile


def _status(keeper: KeeperProcess) -> dict[str, object]:
    return dict(keeper.local_client().status()["archive"])


def _archived(keeper: KeeperProcess) -> int:
    """The newest version in the archive, as the keeper tells."""
    return int(str(_status(keeper)["version"] or 0))


def _lag(keeper: KeeperProcess, missed: int, writer: Writer) -> list[str]:
    archived = _archived(keeper)
    return [f"version {archived} of {writer.commits[-1][0]}"] if archived <= missed + 2 < writer.commits[-1][0] else []

"""Archivers and copiers killed, and the archive taken away, under a mixed load: every version in it is what the writer had.

The load and its model are those of `points.py`. A round is a fault at a random moment; then the archive must catch up by
itself, and its newest version, restored from the archive alone, must be what the writer had at that version.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from campaigns.injecting import why_no_tracer
from campaigns.points import Digest, Writer, look
from campaigns.running import Stage, percentile
from campaigns.snares import Point, Snare
from pondkeeper.archive.history import read_archived, versions
from pondkeeper.archive.manifest import ArchivedVersion
from pondkeeper.archive.opening import Archive, open_archive
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.writing import About, write_version
from pondkeeper.engine.checksum import block_checksum
from tests.support.keeper import KeeperProcess, keepers, program_environment, wait_until

LONG_ROUNDS, SHORT_ROUNDS = 200, 4
KINDS = ("point", "copier", "both", "point", "archiver", "away")
LONGEST_AWAY_S = 2.0
CAUGHT_UP_S = 90.0
SETTINGS = {"PONDKEEPER_ARCHIVE_INTERVAL_S": "0.1", "PONDKEEPER_ARCHIVE_VERIFY_EVERY_S": "0"}


def play(stage: Stage) -> None:
    """Faults while the load goes on; what was restored is judged when it is over, since the last commits are known only then."""
    room, chance = stage.room("archivers"), stage.chance
    keeper = KeeperProcess(room / "pond.duckdb", "--archive", str(room / "archive"), environment=SETTINGS)
    found: list[tuple[str, int, Digest]] = []
    took, faults, kills, seen = [], Counter[str](), 0, Counter[str]()
    with keepers(keeper):
        keeper.start()
        with open_archive(str(room / "archive")) as archive, Writer(keeper, chance) as writer:
            for number in range(1, stage.options.of(LONG_ROUNDS, SHORT_ROUNDS) + 1):
                if not stage.has_time or writer.failure:
                    break
                kind, at = KINDS[(number - 1) % len(KINDS)], None
                if kind == "point" and not why_no_tracer():
                    at = _ensnare(keeper, chance.choice(_points(room)), room)
                    kills += at is not None
                    seen[str(at)] += 1
                else:
                    kills += _strike(kind.replace("point", "archiver"), keeper, chance)
                faults[kind] += 1
                began = time.monotonic()
                newest = _caught_up(archive, writer)
                took.append(time.monotonic() - began)
                digest = look(restored(archive, newest, room))
                found.append((f"round {number}, {kind}", newest.version, digest))
                stage.line(round=number, fault=kind, at=at, version=newest.version, caught_up_s=round(took[-1], 2))
            client = keeper.local_client()
            client.backups.now()
            wait_until(lambda: client.status()["version"], what="a version")
        stage.violated([writer.failure] if writer.failure else [])
        wrong = [what for what, version, digest in found if digest not in writer.allowed(version)]
        stage.violated([f"{what}: not what the writer had" for what in wrong])
        stage.violated([] if kills else ["nobody was killed"])
        stage.violated(_unreadable(room, chance))
        stage.control("changes that were not named", _forgotten(keeper, room, writer))
    stage.line(
        summary=True, rounds=len(found), kills=kills, faults=dict(faults), commits=len(writer.commits) - 1,
        caught_up_p50_s=percentile(took, 0.5), caught_up_max_s=percentile(took, 1.0),
        points=dict(sorted(seen.items())),
    )  # fmt: skip


def _strike(kind: str, keeper: KeeperProcess, chance: random.Random) -> int:
    """One fault, at a random moment; how many processes it has killed."""
    time.sleep(chance.random() * 0.4)
    if kind == "away":
        _take_away(keeper, chance.random() * LONGEST_AWAY_S)
        return 0
    struck = 0
    for name in ("archiver", "copier") if kind == "both" else (kind,):
        for pid in keeper.children(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                struck += 1
    return struck


def _points(room: Path) -> list[Point]:
    """Where an archiver is killed, in the order of a version's way.

    Blocks are written and flushed by its threads; pages, and at last the manifest, are written by the first, which alone renames.
    """
    archive = room / "archive"
    return [
        Point("write", 1, every_thread=True), Point("write", 2, every_thread=True),  # between blocks
        Point("write", 1), Point("flush", 1, every_thread=True), Point("flush", path=archive / "pages"),  # before anything is renamed
        *(Point("rename", nth) for nth in (1, 2, 3, 5, 8, 13)),  # between blocks, and between blocks and pages
        Point("write", 2),  # the manifest is begun: blocks and pages are there
        Point("flush", path=archive / "databases" / "pond" / "versions"),  # the manifest is there
    ]  # fmt: skip


def _ensnare(keeper: KeeperProcess, point: Point, room: Path) -> str | None:
    """Kill the archiver as it comes to that point; where it was, None if it never came there."""
    [pid, *_] = wait_until(lambda: keeper.children("archiver"), timeout_s=CAUGHT_UP_S, what="an archiver")
    snare = Snare(pid, point, room / "snare.log")
    snare.wait_attached()
    at = snare.strike(room / "archive")
    (room / "snare.log").unlink(missing_ok=True)
    return at


def _take_away(keeper: KeeperProcess, seconds: float) -> None:
    """The archive cannot be reached for a while."""
    archive = keeper.target.parent / "archive"
    away = archive.rename(archive.with_name("away"))
    archive.write_bytes(b"")
    time.sleep(seconds)
    archive.unlink()
    away.rename(archive)


def _caught_up(archive: Archive, writer: Writer) -> ArchivedVersion:
    """The newest archived version, once it has every commit that there is now."""
    wanted = writer.commits[-1][0]

    def newest() -> ArchivedVersion | None:
        found = versions(archive.store, "pond")
        return found[-1] if writer.failure or (found and found[-1].version >= wanted) else None

    reached: ArchivedVersion = wait_until(newest, timeout_s=CAUGHT_UP_S, what=f"version {wanted} in the archive")
    return reached


def restored(archive: Archive, version: ArchivedVersion, room: Path) -> Path:
    """A file of that version, from the archive alone."""
    file = room / "then.duckdb"
    file.unlink(missing_ok=True)
    assemble(archive.store, archive.sealer, read_archived(archive.store, archive.sealer, version).tree, file)
    return file


def _unreadable(room: Path, chance: random.Random) -> list[str]:
    """Versions that are in the archive and cannot be restored, of a hundred drawn from all."""
    wrong = []
    with open_archive(str(room / "archive")) as archive:
        there = versions(archive.store, "pond")
        for version in chance.sample(there, min(100, len(there))):
            try:
                look(restored(archive, version, room))
            except Exception as error:  # noqa: BLE001  Why: whatever it is, this version is lost.
                wrong.append(f"version {version.version} cannot be restored: {error!r}")
    return wrong


def _forgotten(keeper: KeeperProcess, room: Path, writer: Writer) -> list[str]:
    """Two snapshots archived as if nothing had changed between them: whether the comparison sees that."""
    shelf = keeper.database.snapshots
    numbers = sorted(int(each.name) for each in shelf.iterdir() if each.name.isdigit())
    seen = []
    for older, newer in itertools.pairwise(numbers):
        with open_archive(str(room / f"forgetful-{newer}")) as archive:
            about = [About("pond", number, datetime.now(UTC), "control") for number in (older, newer)]
            before = write_version(archive, keeper.database.snapshot(older), about[0], checksum_of=block_checksum)
            write_version(archive, keeper.database.snapshot(newer), about[1], before.archived, [], checksum_of=block_checksum)
            said = _look_apart(restored(archive, versions(archive.store, "pond")[-1], room))
            if said not in {json.dumps(digest) for digest in writer.allowed(newer)}:
                seen.append(f"version {newer} is not what the writer had: {said:.100}")
    return seen


def _look_apart(file: Path) -> str:
    """The look by a process of its own. Trap: a file of blocks that do not belong together may end DuckDB's process."""
    command = [sys.executable, "-c", _LOOK, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment()).stdout


_LOOK = "import json, sys; from pathlib import Path; from campaigns.points import look; print(json.dumps(look(Path(sys.argv[1]))), end='')"

"""Writers and a pruner of one store, as processes of their own, killed again and again: what can be seen is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pondkeeper.archive.history import databases, read_archived, versions
from pondkeeper.archive.names import BLOCKS, PAGES
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.pruning import prune
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.retention import Retention
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from tests.archive import plainfiles
from tests.support.keeper import program_environment, wait_until

ROUNDS, MOST_ROUNDS = 6, 60
PROGRAM = """
import random, sys
from datetime import UTC, datetime
from pathlib import Path
from pondkeeper.archive.history import newest
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.pruning import prune
from pondkeeper.archive.retention import Retention
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.writing import About, write_version
from tests.archive import plainfiles

kind, root, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
archive, chance = Archive(LocalStore(root / "archive"), Sealer()), random.Random(seed)
print("ready", flush=True)
if kind == "pruner":
    while True:
        prune(archive, Retention(0, 0, 0))
last = newest(archive.store, kind)
number, previous = last.version if last else 0, None
while True:
    number += 1
    letters = "".join(chance.choice("abcdefgh") for _ in range(6))
    file = plainfiles.write(root / f"{kind}.duckdb", letters, number)
    (root / kind / str(number)).write_text(letters)
    previous = write_version(archive, file, About(kind, number, datetime.now(UTC), "first"), previous).archived
"""


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_what_can_be_seen_is_whole_after_every_kill(tmp_path: Path) -> None:
    """Two writers with blocks in common and a pruner that leaves only the newest, all killed at any moment."""
    archive, chance = Archive(LocalStore(tmp_path / "archive"), Sealer()), random.Random(6)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    interrupted = 0
    for number in range(MOST_ROUNDS):
        if number >= ROUNDS and interrupted:
            break
        processes = [_started(kind, tmp_path, number) for kind in ("one", "two", "pruner")]
        try:
            before = _newest(archive)
            wait_until(lambda before=before: _both_went_on(before, _newest(archive)), timeout_s=120)
            for process in chance.sample(processes, 3):
                _wait_a_little(chance)
                process.kill()
        finally:
            for process in processes:
                process.kill()
                _, errors = process.communicate()
                assert process.returncode == -signal.SIGKILL, errors
        _all_are_whole(archive, tmp_path)
        interrupted += any((tmp_path / "archive" / ".unfinished").iterdir()) or _objects(archive) != _needed(archive)
    assert interrupted, "the positive control: some kill should have left something half done"
    prune(archive, Retention(0, 0, 0))
    _all_are_whole(archive, tmp_path)
    assert _objects(archive) == _needed(archive)
    assert list((tmp_path / "archive" / ".unfinished").iterdir()) == []


def _objects(archive: Archive) -> set[str]:
    return {name.rsplit("/", 1)[1] for kind in (BLOCKS, PAGES) for name in archive.store.names(kind)}


def _needed(archive: Archive) -> set[str]:
    """What the versions refer to."""
    needed: set[str] = set()
    for name in databases(archive.store):
        for found in versions(archive.store, name):
            archived = read_archived(archive.store, archive.sealer, found)
            needed.update(archived.manifest.pages)
            needed.update(archived.tree.digest(block).hex() for block in range(len(archived.tree)))
    return needed


def _started(kind: str, root: Path, seed: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, str(root), str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=program_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _newest(archive: Archive) -> dict[str, int]:
    return {name: max((found.version for found in versions(archive.store, name)), default=0) for name in ("one", "two")}


def _both_went_on(before: dict[str, int], now: dict[str, int]) -> bool:
    return all(now[name] > before[name] + 1 for name in before)


def _wait_a_little(chance: random.Random) -> None:
    """A moment that nobody chose: so many turns of the scheduler."""
    for _ in range(chance.randrange(200)):
        os.sched_yield()


def _all_are_whole(archive: Archive, root: Path) -> None:
    with archive.store.writing():
        for name in databases(archive.store):
            for found in versions(archive.store, name):
                archived = read_archived(archive.store, archive.sealer, found)
                assemble(archive.store, archive.sealer, archived.tree, root / "out")
                letters = (root / name / str(found.version)).read_text()
                assert (root / "out").read_bytes() == plainfiles.content(letters, found.version)
                (root / "out").unlink()

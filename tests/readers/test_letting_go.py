"""Idle readers let go of versions that nobody will ask for, so that their files can become the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.readers.pool import CATCH_UP_INTERVAL_S
from tests.support.keeper import KeeperProcess, wait_until

READERS = 12


@pytest.fixture
def pond(tmp_path: Path) -> Iterator[KeeperProcess]:
    with KeeperProcess(tmp_path / "pond.duckdb", "--readers", str(READERS), "--memory-limit", "256MB") as keeper:
        yield keeper


def test_idle_readers_let_go_of_an_old_version_long_before_they_open_the_new_one(pond: KeeperProcess) -> None:
    """With a walk of four a second the last of them would keep the old file from being used again for seconds."""
    old = pond.client().execute("CREATE TABLE t (n INTEGER)").version
    all_s = READERS * CATCH_UP_INTERVAL_S * 10
    wait_until(
        lambda: _versions_open(pond).count(old) == READERS, timeout_s=all_s, what="all readers on the old version"
    )
    pond.client().execute("INSERT INTO t VALUES (1)")
    wait_until(lambda: any(version > old for version in _versions_open(pond)), what="one reader on the new version")
    open_then = wait_until(lambda: _nothing_but_new(pond, old), what="the end of the old version")
    assert len(open_then) <= READERS // 2  # the others have nothing open yet


def _nothing_but_new(pond: KeeperProcess, old: int) -> list[int]:
    found = _versions_open(pond)
    return [] if old in found else found


def _versions_open(pond: KeeperProcess) -> list[int]:
    """The version that each reader has open, of those that have one."""
    found = []
    for pid in pond.children("reader"):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                file = descriptor.readlink()
            except FileNotFoundError:  # it has just been closed
                continue
            if file.name == "pond.duckdb" and file.parent.name.isdigit():
                found.append(int(file.parent.name))
    return found

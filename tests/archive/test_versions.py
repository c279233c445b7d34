"""A version goes into the archive and comes out again, block for block; the next one costs what it changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pondkeeper.archive.history import read_archived, version_at, version_numbered, versions
from pondkeeper.archive.keys import ArchiveKey
from pondkeeper.archive.opening import Archive, identify
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.writing import About, write_version
from pondkeeper.engine.checksum import block_checksum
from pondkeeper.errors import VersionNotArchived

BEGAN = datetime(2026, 11, 20, 14, 3, 7, 123000, tzinfo=UTC)


def about(version: int) -> About:
    return About("sales", version, BEGAN + timedelta(seconds=version), "first")


def change(file: Path, *statements: str) -> None:
    with duckdb.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("CHECKPOINT")


def rows(file: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(file, read_only=True) as connection:
        return connection.execute("SELECT count(*), sum(hash(t)) FROM t").fetchall()


@pytest.mark.parametrize("key", [None, ArchiveKey(bytes(range(32)))], ids=["plain", "encrypted"])
def test_two_versions_come_back_as_they_were(tmp_path: Path, key: ArchiveKey | None) -> None:
    file = tmp_path / "sales.duckdb"
    archive = Archive(LocalStore(tmp_path / "archive"), Sealer(key))
    identify(archive.store, key, make=True)
    change(file, "CREATE TABLE t AS SELECT range AS id, hash(range) AS x FROM range(200000)")
    first, wanted_first = write_version(archive, file, about(1), checksum_of=block_checksum), rows(file)
    change(file, "DELETE FROM t WHERE id < 1000", "INSERT INTO t VALUES (1000000, 1)")
    second, wanted_second = write_version(archive, file, about(2), first.archived), rows(file)
    assert second.blocks_put < first.blocks_put

    assert [found.version for found in versions(archive.store, "sales")] == [1, 2]
    for version, wanted in ((1, wanted_first), (2, wanted_second)):
        found = read_archived(archive.store, archive.sealer, version_numbered(archive.store, "sales", version))
        target = tmp_path / f"restored-{version}.duckdb"
        assemble(archive.store, archive.sealer, found.tree, target)
        assert rows(target) == wanted
    assert version_at(archive.store, "sales", BEGAN + timedelta(seconds=1.5)).version == 1
    with pytest.raises(VersionNotArchived):
        version_at(archive.store, "sales", BEGAN)

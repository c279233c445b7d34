"""A replica of an archive: fetched, proved, and what is not right there is not taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pondkeeper.archive.opening import Archive, open_archive
from pondkeeper.archive.replica.assembling import Assembler
from pondkeeper.archive.replica.origin import ArchiveOrigin, Superseded, open_to_read
from pondkeeper.archive.writing import About, write_version
from pondkeeper.engine.checksum import block_checksum
from pondkeeper.errors import ArchiveDamaged, ArchiveUnavailable
from pondkeeper.files.paths import DatabasePaths, Home

BEGAN = datetime(2026, 11, 20, 14, 3, 7, 123000, tzinfo=UTC)
ROWS = "SELECT count(*), sum(hash(t)) FROM t"


def archived(archive: Archive, file: Path, version: int, *statements: str) -> list[tuple[object, ...]]:
    """Change the database, archive it as that version, and what it has."""
    with duckdb.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("CHECKPOINT")
        rows = connection.execute(ROWS).fetchall()
    about = About("w", version, BEGAN + timedelta(seconds=version), "first")
    write_version(archive, file, about, checksum_of=block_checksum)
    return rows


def rows_of(paths: DatabasePaths, version: int) -> list[tuple[object, ...]]:
    with duckdb.connect(paths.snapshot(version), read_only=True) as connection:
        return connection.execute(ROWS).fetchall()


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    return Home(tmp_path / "here").database(tmp_path / "w.duckdb")


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_versions_come_from_the_archive(tmp_path: Path, paths: DatabasePaths, is_encrypted: bool) -> None:
    """The newest, whichever were skipped; nothing where there is none newer; and a damaged block is not taken."""
    key_file = tmp_path / "archive.key"
    key_file.touch(mode=0o600)
    key_file.write_text("5a" * 32)
    key = str(key_file) if is_encrypted else ""
    place = tmp_path / "archive"
    with pytest.raises(ArchiveUnavailable), open_to_read(str(place), key):
        pass
    assembler = Assembler(paths, keep=2)
    file = tmp_path / "source.duckdb"
    with open_archive(str(place), Path(key) if key else None) as archive, open_to_read(str(place), key) as seen:
        origin = ArchiveOrigin(seen, "w")
        assert origin.offer(0, "", 0).manifest is None
        archived(archive, file, 1, "CREATE TABLE t AS SELECT range AS x, hash(range) AS y FROM range(60000)")
        rows = archived(archive, file, 2, "DELETE FROM t WHERE x % 3 = 0")
        manifest = origin.offer(0, "", 0).manifest
        assert manifest is not None
        assert manifest.version == 2
        assembler.bring(manifest, origin)
        assert rows_of(paths, 2) == rows
        assert origin.offer(2, "first", 0).manifest is None
        archived(archive, file, 3, "INSERT INTO t SELECT range, range FROM range(100)")
        newest = origin.offer(2, "first", 0).manifest
        assert newest is not None
        _damage(place / "blocks")
        with pytest.raises(ArchiveDamaged):
            assembler.bring(newest, origin)
        assert not paths.snapshot(3).exists()
        assert rows_of(paths, 2) == rows
        origin.close()
    assembler.close()


def test_what_was_pruned_meanwhile_is_superseded(tmp_path: Path, paths: DatabasePaths) -> None:
    place = tmp_path / "archive"
    assembler = Assembler(paths, keep=2)
    with open_archive(str(place)) as archive:
        archived(archive, tmp_path / "source.duckdb", 1, "CREATE TABLE t AS SELECT range AS x FROM range(10)")
        origin = ArchiveOrigin(archive, "w")
        manifest = origin.offer(0, "", 0).manifest
        assert manifest is not None
        for block in (place / "blocks").rglob("*"):
            if block.is_file():
                block.unlink()
        with pytest.raises(Superseded):
            assembler.bring(manifest, origin)
        origin.close()
    assembler.close()


def _damage(blocks: Path) -> None:
    """Flip a bit in every block."""
    for file in blocks.rglob("*"):
        if file.is_file():
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 8
            file.write_bytes(data)

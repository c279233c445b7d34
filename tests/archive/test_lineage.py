"""The lineage of a database: kept, begun anew, taken over."""

from __future__ import annotations

from pathlib import Path

from pondkeeper.archive.lineage import adopt_lineage, begin_lineage, lineage_of
from pondkeeper.files.paths import Home


def test_a_lineage_lasts_until_a_new_one_begins(tmp_path: Path) -> None:
    """It is the same each time it is asked for; the next one names the one before and where that ended."""
    paths = Home(tmp_path / ".pondkeeper").database(tmp_path / "w.duckdb")
    first = lineage_of(paths)
    assert lineage_of(paths) == first
    second = begin_lineage(paths, after=41)
    assert (second.before, second.after) == (first.id, 41)
    assert lineage_of(paths) == second != first


def test_a_replica_takes_over_that_of_its_primary(tmp_path: Path) -> None:
    paths = Home(tmp_path / ".pondkeeper").database(tmp_path / "w.duckdb")
    mine = lineage_of(paths)
    adopt_lineage(paths, mine.id)
    assert lineage_of(paths) == mine
    adopt_lineage(paths, "0123456789abcdef")
    assert lineage_of(paths).id == "0123456789abcdef"


def test_a_file_that_makes_no_sense_is_replaced(tmp_path: Path) -> None:
    paths = Home(tmp_path / ".pondkeeper").database(tmp_path / "w.duckdb")
    lineage_of(paths)
    (paths.folder / "lineage.json").write_bytes(b"{")
    assert lineage_of(paths) == lineage_of(paths)

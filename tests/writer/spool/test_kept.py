"""Kept bodies: bounds of size and age, and what an end of the keeper in their midst leaves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pondkeeper.errors import BodyNotKept
from pondkeeper.writer.spool.kept import KeptBodies
from pondkeeper.writer.spool.log import Entry, Header


def entry(body: bytes, file: str | None = None) -> Entry:
    return Entry(7, Header("t", "ndjson", "d", time.time(), file=file, size_bytes=len(body) if file else 0), b"" if file else body)


def kept_in(folder: Path, *, keep_s: float = 3600.0, max_bytes: int = 1000) -> KeptBodies:
    (folder / "incoming").mkdir(exist_ok=True)
    return KeptBodies(folder / "refused", folder / "incoming", keep_s, max_bytes)


def test_the_oldest_go_first(tmp_path: Path) -> None:
    """Beyond the limit only the newest stay; one that is larger than all of it is not kept."""
    kept = kept_in(tmp_path)
    for number in range(5):
        kept.keep(f"tk_{number}", entry(b"x" * 300))
        os.utime(tmp_path / "refused" / f"tk_{number}.json", (number, time.time() - 100 + number))
    kept.keep("tk_huge", entry(b"x" * 1001))

    assert [number for number in range(5) if kept.find(f"tk_{number}")] == [2, 3, 4]
    assert kept.find("tk_huge") is None
    assert len(list((tmp_path / "refused").iterdir())) == 6


def test_the_old_go(tmp_path: Path) -> None:
    """Whatever the room, after the time that was set."""
    kept = kept_in(tmp_path, keep_s=50)
    kept.keep("tk_a", entry(b"x"))
    os.utime(tmp_path / "refused" / "tk_a.json", (0, time.time() - 60))
    kept.forget()
    with pytest.raises(BodyNotKept):
        kept.body_of("tk_a")
    assert not list((tmp_path / "refused").iterdir())


def test_nothing_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    """A limit of 0."""
    kept = kept_in(tmp_path, max_bytes=0)
    kept.keep("tk_a", entry(b"x"))
    assert kept.find("tk_a") is None


def test_half_kept_is_not_kept(tmp_path: Path) -> None:
    """A body whose description was not written goes; one that lost a part is never sent again."""
    kept = kept_in(tmp_path)
    kept.keep("tk_a", entry(b"whole"))
    (tmp_path / "refused" / "tk_b.body").write_bytes(b"x")
    kept.path("tk_a").write_bytes(b"who")
    kept.forget()
    assert not (tmp_path / "refused" / "tk_b.body").exists()
    with pytest.raises(BodyNotKept):
        kept.body_of("tk_a")


def test_a_body_in_a_file_of_its_own(tmp_path: Path) -> None:
    """It costs no copy, and outlives the file that the spool removes."""
    kept = kept_in(tmp_path)
    body = tmp_path / "incoming" / "body-1"
    body.write_bytes(b"rows")
    kept.keep("tk_a", entry(b"rows", "body-1"))
    assert kept.path("tk_a").stat().st_ino == body.stat().st_ino
    body.unlink()
    kept.lend("tk_a", "body-2")
    assert (tmp_path / "incoming" / "body-2").read_bytes() == b"rows"
    kept.retried("tk_a", kept.body_of("tk_a"), "tk_b")
    assert not kept.path("tk_a").exists()
    found = kept.find("tk_a")
    assert found is not None
    assert found.retried_as == "tk_b"

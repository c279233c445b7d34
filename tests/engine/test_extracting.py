"""Streams of Arrow into staged files: whole row groups apart from the rest, and nothing of an earlier stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pondkeeper.engine.bulk import ROW_GROUP_ROWS
from pondkeeper.engine.direct import Column, Direct
from pondkeeper.engine.extracting import Stager
from pondkeeper.engine.loads.files import opened
from pondkeeper.errors import BodyInvalid, PondkeeperError


@pytest.fixture
def stager(tmp_path: Path) -> Iterator[Stager]:
    stager = Stager(tmp_path, memory_limit_bytes=1 << 29, threads=2)
    yield stager
    stager.close()


def stream(begin: int, end: int, batch_rows: int = 50_000) -> pa.RecordBatchReader:
    return pa.table({"c0": pa.array(range(begin, end), pa.int64())}).to_reader(batch_rows)


def sizes(file: Path) -> list[int]:
    if not file.exists():
        return []
    with opened(str(file)) as staged:
        return [batch.num_rows for batch in staged.batches(["n"], ROW_GROUP_ROWS)]


@pytest.mark.parametrize("direct", [Direct(), None], ids=["directly", "by the engine"])
@pytest.mark.parametrize("is_large", [False, True])
def test_whole_row_groups_and_the_rest(stager: Stager, tmp_path: Path, direct: Direct | None, is_large: bool) -> None:
    """Who loads the rests of several streams behind all else joins only those; no row is missing or there twice."""
    file, rest = tmp_path / "t.arrow", tmp_path / "t-rest.arrow"
    columns = [Column("n", "c0", "c0", direct)]
    count = stager.stage(stream(0, 2 * ROW_GROUP_ROWS + 7), columns, file, rest, 8, is_large=is_large)
    assert count == 2 * ROW_GROUP_ROWS + 7
    assert (sizes(file), sum(sizes(rest))) == ([ROW_GROUP_ROWS, ROW_GROUP_ROWS], 7)
    found: list[int] = []
    for each in (file, rest):
        with opened(str(each)) as staged:
            assert staged.count == sum(sizes(each))
            found += [n for batch in staged.batches(["n"], 1000) for n in batch.column(0).to_pylist()]
    assert sorted(found) == list(range(count))


def test_nothing_is_left_of_an_earlier_stream(stager: Stager, tmp_path: Path) -> None:
    """A second copy of the same piece has no rest, and the first one had."""
    file, rest = tmp_path / "t.arrow", tmp_path / "t-rest.arrow"
    columns = [Column("n", "c0", "c0", Direct())]
    stager.stage(stream(0, 10), columns, file, rest, 8)
    assert sizes(rest) == [10]
    stager.stage(stream(0, ROW_GROUP_ROWS), columns, file, rest, 8)
    assert (sizes(file), sizes(rest)) == ([ROW_GROUP_ROWS], [])


def test_what_breaks_a_stream_is_said_in_its_words(stager: Stager, tmp_path: Path) -> None:
    """Whether the engine reads it or not."""

    def broken() -> Iterator[pa.RecordBatch]:
        yield from stream(0, 10)
        raise OSError("[libpq] the source said so")

    for direct in (Direct(), None):
        reader = pa.RecordBatchReader.from_batches(pa.schema({"c0": pa.int64()}), broken())
        with pytest.raises(PondkeeperError) as caught:
            stager.stage(reader, [Column("n", "c0", "c0", direct)], tmp_path / "t.arrow", tmp_path / "r.arrow", 8)
        assert "[libpq] the source said so" in (caught.value.private or caught.value.message)


@pytest.mark.parametrize("kept_bytes", [3, 100, 0.5, 0.99])
def test_a_file_that_breaks_off_is_refused(stager: Stager, tmp_path: Path, kept_bytes: float) -> None:
    """It says so as a staged file that is not whole, wherever it ends."""
    file, rest = tmp_path / "t.arrow", tmp_path / "r.arrow"
    stager.stage(stream(0, ROW_GROUP_ROWS), [Column("n", "c0", "c0", Direct())], file, rest, 8)
    assert sizes(file) == [ROW_GROUP_ROWS]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept_bytes if kept_bytes > 1 else kept_bytes * len(whole))])
    with pytest.raises(BodyInvalid):
        sizes(file)

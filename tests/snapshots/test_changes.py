"""What a manifest says has changed since the version before it: never less than what did, and not much more."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.engine.fileformat import block_offset, read_block_use, read_headers
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.changes import ChangesNoted, Ranges, as_ranges, union
from pondkeeper.snapshots.manifest import read_manifest
from tests.snapshots.operators import CopierProcess

some_blocks = st.sets(st.integers(0, 400))


def blocks_of(ranges: Ranges) -> set[int]:
    return {block for first, end in ranges for block in range(first, end)}


@given(some_blocks)
def test_ranges_name_the_blocks_and_no_others(blocks: set[int]) -> None:
    ranges = as_ranges(blocks)
    assert blocks_of(ranges) == blocks
    assert all(end < first for (_, end), (first, _) in itertools.pairwise(ranges))


@given(some_blocks, st.integers(1, 20))
def test_too_many_ranges_are_made_fewer_and_lose_no_block(blocks: set[int], most: int) -> None:
    ranges = as_ranges(blocks, most)
    assert len(ranges) <= most
    assert blocks_of(ranges) >= blocks


@given(some_blocks, some_blocks)
def test_changes_of_two_versions_are_put_together(one: set[int], other: set[int]) -> None:
    assert union(as_ranges(one), as_ranges(other)) == as_ranges(one | other)
    assert union(None, as_ranges(other)) is None
    assert union(as_ranges(one), None) is None


def test_what_was_not_seen_is_not_known_until_the_next_version() -> None:
    changes = ChangesNoted()
    changes.note({1})
    assert (changes.since, changes.ranges) == (None, None)
    changes.settle(7)
    changes.note({3})
    changes.note({1, 2})
    assert (changes.since, changes.ranges) == (7, [(1, 4)])
    changes.note(None)
    changes.note({5})
    assert changes.ranges is None
    changes.settle(8)
    assert (changes.since, changes.ranges) == (8, [])


def blocks_that_differ(before: Path, now: Path) -> set[int]:
    """The blocks in use in `now` that are not the same in `before`. Snapshots: nobody's lock is lost by reading them."""
    older, newer = (os.open(path, os.O_RDONLY) for path in (before, now))
    try:
        headers = read_headers(newer)
        use, size = read_block_use(newer, headers), headers.active.block_size_bytes
        assert use is not None
        used = [block for block in range(use.block_count) if use.is_used(block)]
        return {b for b in used if os.pread(older, size, block_offset(b, size)) != os.pread(newer, size, block_offset(b, size))}
    finally:
        os.close(older)
        os.close(newer)


def test_every_block_that_differs_from_the_version_before_is_named(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """Under writes of every kind, files compared; and what is named is a small part of the file."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    writer.execute("create table big as select range i, uuid() u, md5(range::varchar) s from range(600000)")
    writer.execute("create table small(i int, v varchar)")
    named, known = 0, 0
    for version in range(1, 13):
        for _ in range(chance.randint(1, 3)):
            writer.execute(
                chance.choice(
                    [
                        f"insert into small select range, 'x' from range({chance.choice([1, 5000, 130000])})",
                        f"update big set u = uuid() where i between {version * 1000} and {version * 1000 + 50}",
                        "delete from small where i % 3 = 0",
                        "create or replace table part as select * from big using sample 10%",
                        "drop table if exists part",
                    ]
                )
            )
        writer.execute("checkpoint")
        answer = copier.publish(version, keep=100)
        manifest = read_manifest(Path(answer["path"]).parent)
        assert manifest is not None
        assert manifest.block_size_bytes == 262144
        assert answer["changed_since"] == manifest.changed_since == (version - 1 or None)
        if version == 1:
            assert manifest.changed is None
            continue
        assert manifest.changed is not None, f"seed {seed}, version {version}"
        assert answer["changed"] == [list(each) for each in manifest.changed]
        differ = blocks_that_differ(paths.snapshot(version - 1), paths.snapshot(version))
        assert differ <= blocks_of(manifest.changed), f"seed {seed}, version {version}"
        named, known = named + len(blocks_of(manifest.changed)), known + len(differ)
    assert known > 20, "the control: there was something to be named"
    assert named <= 2 * known + 30


def test_a_change_by_somebody_else_is_not_known(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    writer.execute("create table t as select range i from range(1000)")
    writer.execute("checkpoint")
    copier.publish(1)
    assert copier.publish(2, compare=True)["changed"] is None
    assert copier.publish(3)["changed"] == []
    copier.kill()
    copier.start()
    assert copier.publish(4)["changed"] is None

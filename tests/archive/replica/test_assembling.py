"""The shelf of a replica against versions made at random: each is what its primary has, whatever fails on the way."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pondkeeper.archive.manifest import Manifest
from pondkeeper.archive.replica.assembling import Assembler
from pondkeeper.archive.replica.origin import Offered, Superseded
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.tree import BLOCK_BYTES, Tree, block_count, block_span
from pondkeeper.engine.fileformat import HEADERS_BYTES
from pondkeeper.errors import PrimaryUnreachable
from pondkeeper.files.paths import DatabasePaths, Home

SEALER = Sealer()


def version_of(number: int, contents: bytes) -> tuple[Manifest, Tree]:
    digests = b"".join(
        SEALER.digest(contents[start : start + length])
        for start, length in (block_span(block, len(contents)) for block in range(block_count(len(contents))))
    )
    tree = Tree(len(contents), digests)
    pages = tuple(SEALER.digest(page).hex() for page in tree.pages())
    return Manifest("w", number, "2026-11-20T14:03:07.123Z", "first", len(contents), pages), tree


@dataclass
class Primary:
    """Gives out the blocks of one version; after `fails_after` of them it cannot be reached any more."""

    contents: bytes
    number: int = 1
    fails_after: int | None = None
    fails_with: type[Exception] = PrimaryUnreachable
    given: list[bytes] = field(default_factory=list)
    address: str = "https://primary"

    def offer(self, after: int, lineage: str, wait_s: float) -> Offered:
        raise NotImplementedError

    def manifest(self) -> Manifest:
        return version_of(self.number, self.contents)[0]

    def pages(self, digests: Sequence[str]) -> list[bytes]:
        pages = {SEALER.digest(page).hex(): page for page in version_of(self.number, self.contents)[1].pages()}
        return [pages[digest] for digest in digests]

    def blocks(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
        tree = version_of(self.number, self.contents)[1]
        places = {tree.digest(block): block_span(block, tree.size_bytes) for block in range(len(tree))}
        for count, digest in enumerate(digests):
            if self.fails_after is not None and count >= self.fails_after:
                raise self.fails_with
            start, length = places[digest]
            self.given.append(digest)
            yield self.contents[start : start + length], length

    def close(self) -> None:
        pass


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    return Home(tmp_path / ".pondkeeper").database(tmp_path / "w.duckdb")


def changed(contents: bytes, rng: random.Random) -> bytes:
    """The next version: some blocks are others, some are free (zeros), the file grows or shrinks; the headers always change."""
    blocks = [contents[at : at + BLOCK_BYTES] for at in range(HEADERS_BYTES, len(contents), BLOCK_BYTES)]
    if rng.random() < 0.4:
        blocks = blocks[: rng.randrange(1, len(blocks) + 1)]
    blocks += [rng.randbytes(BLOCK_BYTES) for _ in range(rng.choice((0, 0, 1, 3)))]
    for _ in range(rng.randrange(4)):
        blocks[rng.randrange(len(blocks))] = rng.choice((bytes(BLOCK_BYTES), rng.randbytes(BLOCK_BYTES), blocks[0]))
    if rng.random() < 0.2:
        blocks[-1] = blocks[-1][: rng.randrange(1, BLOCK_BYTES)]
    return rng.randbytes(HEADERS_BYTES) + b"".join(blocks)


@pytest.mark.parametrize("seed", range(4))
def test_each_version_is_what_the_primary_has(paths: DatabasePaths, seed: int) -> None:
    """Through breaks at any block, retries with the same or a newer version, restarts, and readers that keep old ones open."""
    rng = random.Random(seed)
    contents = rng.randbytes(HEADERS_BYTES + 5 * BLOCK_BYTES)
    assembler = Assembler(paths, keep=2)
    held: list[tuple[int, bytes]] = []
    broken = 0
    for number in range(1, 21):
        contents = changed(contents, rng)
        primary = Primary(contents, number)
        if rng.random() < 0.3:
            primary.fails_after = rng.randrange(4)
            primary.fails_with = rng.choice((PrimaryUnreachable, Superseded))
        try:
            assembler.bring(primary.manifest(), primary)
        except (PrimaryUnreachable, Superseded):
            broken += 1
            continue
        assert paths.snapshot(number).read_bytes() == contents
        assert paths.published_by_name.read_bytes() == contents
        if rng.random() < 0.3:
            held.append((os.open(paths.snapshot(number), os.O_RDONLY), contents))
        while assembler.idle_step():
            pass
        if rng.random() < 0.2:
            assembler.close()
            assembler = Assembler(paths, keep=2)
            have = assembler.recover(lambda version: pytest.fail(f"version {version} is whole"))
            assert have is not None
            assert have.version == number
        for descriptor, before in held:
            assert os.pread(descriptor, len(before) + 1, 0) == before
    assembler.close()
    for descriptor, _ in held:
        os.close(descriptor)
    assert broken > 0


def test_only_blocks_that_no_copy_here_has_are_fetched(paths: DatabasePaths) -> None:
    rng = random.Random(1)
    contents = rng.randbytes(HEADERS_BYTES + 20 * BLOCK_BYTES)
    assembler = Assembler(paths, keep=1)
    for number in range(1, 6):
        at = HEADERS_BYTES + number * BLOCK_BYTES
        contents = rng.randbytes(HEADERS_BYTES) + contents[HEADERS_BYTES:at] + rng.randbytes(100) + contents[at + 100 :]
        primary = Primary(contents, number)
        cost = assembler.bring(primary.manifest(), primary)
        assert cost.blocks_fetched == len(primary.given) == (21 if number == 1 else 2)
        while assembler.idle_step():
            pass
    assembler.close()


def test_a_first_copy_that_was_cut_off_is_gone_on_with(paths: DatabasePaths) -> None:
    """Also by another process: what has come is proved by its hashes and not fetched again."""
    contents = random.Random(2).randbytes(HEADERS_BYTES + 20 * BLOCK_BYTES)
    assembler = Assembler(paths, keep=2)
    cut = Primary(contents, fails_after=12)
    with pytest.raises(PrimaryUnreachable):
        assembler.bring(cut.manifest(), cut)
    assert not paths.published.exists()
    assembler._lock.release()  # as a kill does: nothing is cleaned up
    after = Assembler(paths, keep=2)
    assert after.recover(lambda _: None) is None
    whole = Primary(contents)
    cost = after.bring(whole.manifest(), whole)
    assert cost.blocks_fetched == 21 - 12 + 1  # the headers are written each time
    assert paths.snapshot(1).read_bytes() == contents
    after.close()


def test_what_a_follower_left_that_died_as_it_showed_a_version_is_taken_up(paths: DatabasePaths) -> None:
    """A file that is read-only already, and a link that was to replace another."""
    contents = random.Random(6).randbytes(HEADERS_BYTES + 6 * BLOCK_BYTES)
    left = paths.snapshots / ".private-0badc0de" / paths.file.name
    left.parent.mkdir(parents=True)
    left.write_bytes(contents)
    left.chmod(0o400)
    paths.published.with_name(f".{paths.published.name}.tmp").symlink_to("nowhere")
    assembler = Assembler(paths, keep=2)
    [taken] = paths.snapshots.glob(f".private-*/{paths.file.name}")
    assert taken.stat().st_mode & 0o777 == 0o600  # root could write it in any case
    primary = Primary(contents)
    cost = assembler.bring(primary.manifest(), primary)
    assert cost.blocks_fetched == 1
    assert paths.published.read_bytes() == contents
    assert list(paths.folder.rglob(".*.tmp")) == []
    assembler.close()


def test_a_flipped_bit_on_the_replicas_disk_is_found_before_it_is_served(paths: DatabasePaths) -> None:
    contents = random.Random(3).randbytes(HEADERS_BYTES + 6 * BLOCK_BYTES)
    assembler = Assembler(paths, keep=2)
    primary = Primary(contents)
    assembler.bring(primary.manifest(), primary)
    assembler.close()
    again = Assembler(paths, keep=2)
    assert again.recover(lambda _: None) is not None  # the control
    again.close()
    file = paths.snapshot(1)
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(HEADERS_BYTES + 3 * BLOCK_BYTES + 77)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 4]))
    damaged: list[int] = []
    after = Assembler(paths, keep=2)
    assert after.recover(damaged.append) is None
    assert damaged == [1]
    assert not file.exists()
    primary = Primary(contents)
    after.bring(primary.manifest(), primary)
    assert file.read_bytes() == contents
    after.close()


def test_a_block_that_is_damaged_in_the_newest_copy_is_not_passed_on(paths: DatabasePaths) -> None:
    """Copies are made from copies, each block proved: what the disk has changed meanwhile is fetched instead."""
    rng = random.Random(4)
    contents = rng.randbytes(HEADERS_BYTES + 6 * BLOCK_BYTES)
    assembler = Assembler(paths, keep=3)
    primary = Primary(contents)
    assembler.bring(primary.manifest(), primary)
    file = paths.snapshot(1)
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(HEADERS_BYTES + 2 * BLOCK_BYTES)
        opened.write(b"another thing")
    contents = rng.randbytes(HEADERS_BYTES) + contents[HEADERS_BYTES:]
    primary = Primary(contents, 2)
    cost = assembler.bring(primary.manifest(), primary)
    assert cost.blocks_fetched == 2
    assert paths.snapshot(2).read_bytes() == contents
    assembler.close()


def test_a_block_that_is_again_what_it_was_is_written_again_after_a_break(paths: DatabasePaths) -> None:
    """Half-way to version 2 a copy has its block; in version 3 that is what it was in version 1, which the copy has not."""
    rng = random.Random(5)
    first = rng.randbytes(HEADERS_BYTES + 6 * BLOCK_BYTES)
    second = first[:HEADERS_BYTES] + rng.randbytes(4 * BLOCK_BYTES) + first[HEADERS_BYTES + 4 * BLOCK_BYTES :]
    assembler = Assembler(paths, keep=1)
    primary = Primary(first, 1)
    assembler.bring(primary.manifest(), primary)
    while assembler.idle_step():
        pass
    broken = Primary(second, 2, fails_after=2)
    with pytest.raises(PrimaryUnreachable):
        assembler.bring(broken.manifest(), broken)
    assert len(broken.given) == 2
    primary = Primary(first, 3)
    assembler.bring(primary.manifest(), primary)
    assert paths.snapshot(3).read_bytes() == first
    assembler.close()

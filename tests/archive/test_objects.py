"""Sealing, keys, trees and manifests: what they promise alone."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.archive.keys import ArchiveKey
from pondkeeper.archive.manifest import ArchivedVersion, Manifest, format_time, manifest_name, parse_name, parse_time
from pondkeeper.archive.opening import identify, open_archive, open_store
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.tree import BLOCK_BYTES, PAGE_BLOCKS, Tree, block_count, block_span, blocks_within
from pondkeeper.engine.fileformat import HEADERS_BYTES
from pondkeeper.errors import ArchiveDamaged, ArchiveKeyInvalid, ArchiveUnavailable, InvalidRequest, ObjectMissing

KEY = ArchiveKey(bytes(range(32)))
OTHER_KEY = ArchiveKey(bytes(32))
SEALERS = [pytest.param(None, id="plain"), pytest.param(KEY, id="encrypted")]


@pytest.mark.parametrize("key", SEALERS)
@pytest.mark.parametrize("contents", [b"", b"x", b"the same " * 10_000, random.Random(1).randbytes(BLOCK_BYTES)])
def test_what_was_sealed_opens(key: ArchiveKey | None, contents: bytes) -> None:
    sealer = Sealer(key)
    digest = sealer.digest(contents)
    sealed = sealer.seal(contents, digest)
    assert sealer.open(sealed, digest) == contents
    assert len(sealed) < len(contents) + 64


@pytest.mark.parametrize("key", SEALERS)
@pytest.mark.parametrize("contents", [b"the same " * 20, random.Random(1).randbytes(100)])
def test_every_bit_counts(key: ArchiveKey | None, contents: bytes) -> None:
    """Each single bit of a sealed object, flipped; each length it could be cut to; and something behind it."""
    sealer = Sealer(key)
    digest = sealer.digest(contents)
    sealed = sealer.seal(contents, digest)
    forged = [sealed[: bit // 8] + bytes([sealed[bit // 8] ^ 1 << bit % 8]) + sealed[bit // 8 + 1 :] for bit in range(8 * len(sealed))]
    forged += [sealed[:length] for length in range(len(sealed))]
    for one in [*forged, sealed + b"\0"]:
        with pytest.raises((ArchiveDamaged, ArchiveKeyInvalid)):
            sealer.open(one, digest)


def test_an_object_under_another_name_does_not_open() -> None:
    for sealer in (Sealer(), Sealer(KEY)):
        digest = sealer.digest(b"one")
        with pytest.raises(ArchiveDamaged):
            sealer.open(sealer.seal(b"other", sealer.digest(b"other")), digest)


def test_a_key_hides_contents_and_names() -> None:
    """Nobody without it can read a block, or tell that a block they know is there; the same contents are still one object."""
    contents = b"the same secret " * 1000
    digest = Sealer(KEY).digest(contents)
    assert digest != hashlib.sha256(contents).digest()
    assert digest == Sealer(KEY).digest(contents) != Sealer(OTHER_KEY).digest(contents)
    sealed = Sealer(KEY).seal(contents, digest)
    assert b"secret" not in sealed
    assert sealed != Sealer(KEY).seal(contents, digest)
    with pytest.raises(ArchiveDamaged):
        Sealer(OTHER_KEY).open(sealed, digest)
    with pytest.raises(ArchiveKeyInvalid):
        Sealer().open(sealed, digest)


def test_what_is_not_encrypted_is_not_taken_with_a_key() -> None:
    """Who can write to the bucket and not encrypt could otherwise slip in contents of their own."""
    digest = Sealer(KEY).digest(b"slipped in")
    with pytest.raises(ArchiveDamaged):
        Sealer(KEY).open(Sealer().seal(b"slipped in", digest), digest)


def test_a_key_file_is_64_digits_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "archive.key"
    text = os.urandom(32).hex()
    file.write_text(text + "\n")
    file.chmod(0o644)
    with pytest.raises(ArchiveKeyInvalid, match="Others may read"):
        ArchiveKey.read(file)
    file.chmod(0o600)
    assert ArchiveKey.read(file).mark == ArchiveKey(bytes.fromhex(text)).mark
    assert text not in repr(ArchiveKey.read(file))
    for wrong in ("", text[:-1], text[:-1] + "g", "\udcff"):
        file.write_bytes(os.fsencode(wrong))
        with pytest.raises(ArchiveKeyInvalid):
            ArchiveKey.read(file)
    with pytest.raises(ArchiveKeyInvalid):
        ArchiveKey.read(tmp_path / "missing")


def test_an_archive_knows_its_key(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "archive")
    with pytest.raises(ObjectMissing):
        identify(store, None)
    identify(store, KEY, make=True)
    identify(store, KEY)
    for wrong in (None, OTHER_KEY):
        with pytest.raises(ArchiveKeyInvalid):
            identify(store, wrong, make=True)
    with open_archive(str(tmp_path / "plain")) as archive:
        assert not archive.sealer.encrypts
        with pytest.raises(ArchiveKeyInvalid):
            identify(archive.store, KEY)
    store.put("archive.json", b'{"format":2,"key":""}')
    with pytest.raises(ArchiveKeyInvalid, match="newer"):
        identify(store, None)
    for damage in (b"", b"{}", b'{"format":1,"key":"" }', b'{"format":1,"key":"","other":1}'):
        store.put("archive.json", damage)
        with pytest.raises(ArchiveDamaged):
            identify(store, None)


def test_who_only_reads_makes_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match="no archive"), open_archive(str(tmp_path / "none"), make=False):
        pytest.fail("opened what is not there")
    assert not (tmp_path / "none").exists()
    with open_archive(str(tmp_path / "one")) as made:
        assert made.store.has("archive.json")
    with open_archive(str(tmp_path / "one"), make=False) as opened:
        assert opened.store.address == str(tmp_path / "one")


def test_a_target_is_an_absolute_folder_or_a_bucket(tmp_path: Path) -> None:
    assert open_store(str(tmp_path)).address == str(tmp_path)
    assert open_store("s3://bucket/a/b/").address == "s3://bucket/a/b"
    for wrong in ("relative/folder", "", "https://bucket"):
        with pytest.raises(InvalidRequest):
            open_store(wrong)


SIZES = st.integers(HEADERS_BYTES, HEADERS_BYTES + 700 * BLOCK_BYTES)


@given(SIZES)
def test_blocks_cover_a_file_without_gap_or_overlap(size_bytes: int) -> None:
    at = 0
    for block in range(block_count(size_bytes)):
        start, length = block_span(block, size_bytes)
        assert start == at
        assert length > 0
        assert list(blocks_within(start, start + length)) == [block]
        at += length
    assert at == size_bytes
    assert list(blocks_within(5, 5)) == []


@given(SIZES, SIZES, st.randoms(use_true_random=False))
def test_a_tree_knows_what_differs_and_is_what_its_pages_say(one: int, other: int, chance: random.Random) -> None:
    tree = Tree(one, b"".join(chance.choice([b"a", b"b"]) * 32 for _ in range(block_count(one))))
    count = block_count(other)
    wanted = dict.fromkeys(chance.sample(range(count), min(count, 3)), b"c" * 32)
    wanted |= dict.fromkeys(range(len(tree), count), b"d" * 32)
    changed = tree.replaced(other, wanted)
    assert changed.differing(tree) == sorted(wanted)
    assert Tree.of_pages(other, changed.pages()) == changed
    assert all(len(page) == 32 * PAGE_BLOCKS for page in changed.pages()[:-1])
    assert list(changed.blocks_with(b"c" * 32)) == sorted(block for block in wanted if wanted[block] == b"c" * 32)
    assert changed.differing(None) == list(range(count))
    assert changed.differing(changed) == []


def test_a_tree_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        Tree(HEADERS_BYTES + 1, b"a" * 32)
    assert block_count(0) == 0
    assert Tree(0, b"").pages() == []


MANIFEST = Manifest("sales", 42, "2026-11-20T14:03:07.123Z", "first", HEADERS_BYTES + 10, ("ab" * 32,), 7, "00" * 16, 67, "v1.5.5")


@pytest.mark.parametrize("key", SEALERS)
def test_every_bit_of_a_manifest_counts(key: ArchiveKey | None) -> None:
    sealer = Sealer(key)
    data = MANIFEST.encode(sealer)
    assert Manifest.decode(data, MANIFEST.name, sealer) == MANIFEST
    for bit in range(8 * len(data)):
        flipped = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        with pytest.raises(ArchiveDamaged):
            Manifest.decode(flipped, MANIFEST.name, sealer)


def test_a_manifest_belongs_to_its_name_and_its_key() -> None:
    """A manifest put in another's place, or written by somebody without the key, is none."""
    data = MANIFEST.encode(Sealer(KEY))
    other = replace(MANIFEST, version=43)
    for name, sealer in ((other.name, Sealer(KEY)), (MANIFEST.name, Sealer()), (MANIFEST.name, Sealer(OTHER_KEY))):
        with pytest.raises(ArchiveDamaged):
            Manifest.decode(data, name, sealer)


@pytest.mark.parametrize(
    "wrong",
    [replace(MANIFEST, pages=()), replace(MANIFEST, block_bytes=4096), replace(MANIFEST, format=2)],
    ids=["pages", "block size", "format"],
)
def test_a_manifest_that_does_not_fit_itself_is_refused(wrong: Manifest) -> None:
    with pytest.raises(ArchiveDamaged):
        Manifest.decode(wrong.encode(Sealer()), wrong.name, Sealer())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{}", msgspec.json.encode({"version": "x"})])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveDamaged):
        Manifest.decode(data, MANIFEST.name, Sealer())


def test_a_name_tells_version_and_time() -> None:
    time = datetime(2026, 11, 20, 16, 3, 7, 123999, tzinfo=timezone(timedelta(hours=2)))
    name = manifest_name("sales", 42, time)
    assert name == "databases/sales/versions/000000000042-20261120T140307123Z" == MANIFEST.name
    cut = datetime(2026, 11, 20, 14, 3, 7, 123000, tzinfo=UTC)
    assert parse_name("sales", name) == ArchivedVersion(42, cut, "sales")
    assert parse_time(format_time(time)) == cut
    for other in ("databases/sales/versions/42", "databases/sales/versions/000000000042-20261320T140307123Z", "archive.json"):
        assert parse_name("sales", other) is None
    for database in ("../up", "", "a/b"):
        with pytest.raises(InvalidRequest):
            manifest_name(database, 1, time)
    with pytest.raises(ArchiveDamaged):
        parse_time("yesterday")

"""What every store promises, of a folder and of a bucket on a real S3 server."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from pathlib import Path

import pytest

from pondkeeper.archive.names import block_name
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store import claims
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.store.protocol import Store, Stored
from pondkeeper.archive.store.s3 import S3Store
from pondkeeper.errors import ArchiveBusy, ArchiveDamaged, ArchiveUnavailable, DiskFull, InvalidRequest, ObjectMissing
from tests.archive.tampering import tampering
from tests.support.keeper import wait_until
from tests.support.s3 import Bucket, free_port


def test_what_was_put_is_there_whole(store: Store) -> None:
    store.put("blocks/ab/abcd", b"x" * 300_000)
    assert store.get("blocks/ab/abcd") == b"x" * 300_000
    assert store.has("blocks/ab/abcd")
    assert not store.has("blocks/ab/abce")
    with pytest.raises(ObjectMissing):
        store.get("blocks/ab/abce")
    store.put("blocks/ab/abcd", b"y")
    assert store.get("blocks/ab/abcd") == b"y"


def test_listings_show_names_sizes_and_folders(store: Store) -> None:
    names = ["archive.json", "databases/a/versions/1", "databases/a/versions/2", "databases/b/versions/1", "pages/ab/abc"]
    for name in names:
        store.put(name, name.encode())
    assert sorted(store.names("")) == names
    assert sorted(store.names("databases/a/")) == names[1:3]
    assert list(store.names("databases/a/", names[1])) == [names[2]]
    assert list(store.names("databases/a/", names[2])) == []
    assert list(store.stored("pages/")) == [Stored("pages/ab/abc", 12)]
    assert store.folders("databases/") == ["a", "b"]
    assert list(store.names("nothing/")) == store.folders("nothing/") == []


def test_deleting_what_is_not_there_is_no_fault(store: Store) -> None:
    store.put("pages/ab/abc", b"1")
    store.delete(["pages/ab/abc", "pages/ab/never", "never/ab/never"])
    assert list(store.names("")) == []


def test_an_object_that_is_there_is_not_made_again(store: Store) -> None:
    with store.putting() as putting:
        assert putting.put_missing("blocks/ab/one", lambda: b"123") == 3
        assert putting.put_missing("blocks/ab/one", lambda: pytest.fail("made twice")) == 0
        putting.flush()
        assert putting.put_missing("blocks/ab/one", lambda: pytest.fail("made twice")) == 0
    assert store.get("blocks/ab/one") == b"123"


def test_many_threads_may_put_at_once(store: Store) -> None:
    with store.putting() as putting:

        def put(first: int) -> None:
            for number in range(first, first + 20):
                putting.put_missing(f"blocks/{number % 7:02x}/{number}", lambda number=number: str(number).encode())

        threads = [threading.Thread(target=put, args=(first,)) for first in (0, 10, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(int(store.get(name)) for name in store.names("blocks/")) == list(range(50))


def test_writers_exclude_removers_and_not_each_other(store: Store) -> None:
    with store.writing() as first, store.writing(timeout_s=5) as second:
        first.check()
        second.check()
        with pytest.raises(ArchiveBusy), store.removing(timeout_s=0):
            pytest.fail("removed beside writers")
    with store.removing() as removing:
        removing.check()
        with pytest.raises(ArchiveBusy), store.writing(timeout_s=0):
            pytest.fail("wrote beside a remover")
        with pytest.raises(ArchiveBusy), store.removing(timeout_s=0):
            pytest.fail("two removed at once")
    with store.writing(timeout_s=5):
        pass
    store.close()


def test_a_folder_forgets_what_was_not_flushed(tmp_path: Path) -> None:
    """An exception in the middle leaves no name, and nothing that takes room; so does a dead writer, once somebody removes."""
    store = LocalStore(tmp_path)

    def interrupted() -> None:
        with store.putting() as putting:
            putting.put_missing("blocks/ab/one", lambda: b"123")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / ".unfinished" / "of-a-dead-writer").write_bytes(b"12")
    with store.removing():
        pass
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_folder_is_private(tmp_path: Path) -> None:
    LocalStore(tmp_path / "archive").put("blocks/ab/one", b"1")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "archive").rglob("*") if path.is_dir()}
    assert modes == {0o700}
    assert (tmp_path / "archive" / "blocks" / "ab" / "one").stat().st_mode & 0o777 == 0o600


@pytest.mark.fault
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("blocks/ab/one", b"1")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        with pytest.raises(DiskFull):
            store.put("blocks/ab/two", b"2")
    assert list(store.names("")) == ["blocks/ab/one"]
    assert list((tmp_path / ".unfinished").iterdir()) == []
    store.put("blocks/ab/two", b"2")
    assert store.get("blocks/ab/two") == b"2"


def test_a_folder_that_went_away_is_told_and_comes_back(tmp_path: Path) -> None:
    """Somebody unmounted it, or removed it: unavailable, not damaged; and a store that is used on finds its way again."""
    store = LocalStore(tmp_path / "archive")
    store.put("blocks/ab/one", b"1")
    (tmp_path / "archive").rename(tmp_path / "gone")
    (tmp_path / "archive").write_text("in its place")
    with pytest.raises(ArchiveUnavailable):
        store.put("blocks/ab/two", b"2")
    (tmp_path / "archive").unlink()
    store.put("blocks/ab/two", b"2")
    assert list(store.names("")) == ["blocks/ab/two"]


@pytest.fixture
def in_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket.target


def test_a_claim_that_nobody_renews_goes_stale(
    in_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Age is told by the server's clock, in whole seconds: the claim of a dead writer stops removers for that long only."""
    store = S3Store(f"{in_bucket}/{tmp_path.name}")
    store.put("claims/writing/of-a-dead-one", b"{}")
    with pytest.raises(ArchiveBusy), store.removing(timeout_s=0):
        pytest.fail("removed beside a writer that may live")
    monkeypatch.setattr(claims, "STALE_S", 0.5)
    with store.removing(timeout_s=30):
        assert not store.has("claims/writing/of-a-dead-one")


def test_a_holder_that_slept_for_too_long_learns_it(
    in_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(f"{in_bucket}/{tmp_path.name}")
    with store.writing() as claim:
        claim.check()
        monkeypatch.setattr(claims, "_LOST_S", -1.0)
        with pytest.raises(ArchiveBusy):
            claim.check()
    with store.writing() as another:
        assert another is not claim
    store.close()
    assert list(store.names("claims/")) == []


def test_a_writer_keeps_its_claim_until_a_remover_waits(
    in_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One claim for many versions; a remover in another process gets its turn all the same, and the writer its next."""
    writer, remover = (S3Store(f"{in_bucket}/{tmp_path.name}") for _ in range(2))
    with writer.writing() as first:
        pass
    with writer.writing() as second:
        assert second is first
    with pytest.raises(ArchiveBusy), remover.removing(timeout_s=0):
        pytest.fail("removed beside a claim")
    with writer.writing() as third:
        assert third is first
    monkeypatch.setattr(claims, "_LINGER_S", 0.1)
    removed, written = threading.Event(), threading.Event()

    def remove() -> None:
        with remover.removing(timeout_s=60):
            assert not written.is_set()
            removed.set()

    thread = threading.Thread(target=remove)
    thread.start()
    while not removed.is_set():
        with writer.writing(timeout_s=60):
            pass
    written.set()
    thread.join()
    with writer.writing(timeout_s=60):
        pass
    writer.close()
    assert list(writer.names("claims/")) == []


def test_an_idle_writer_lets_go_of_its_claim(in_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_LINGER_S", 0.05)
    store = S3Store(f"{in_bucket}/{tmp_path.name}")
    with store.writing():
        assert len(list(store.names("claims/"))) == 1
    wait_until(lambda: not list(store.names("claims/")), timeout_s=60)


def test_a_held_claim_is_renewed(in_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_RENEW_S", 0.05)
    store, renewed = S3Store(f"{in_bucket}/{tmp_path.name}"), threading.Event()
    put = store.put

    def watched(name: str, data: bytes) -> None:
        put(name, data)
        if threading.current_thread().name == "archive claim":
            renewed.set()

    monkeypatch.setattr(store, "put", watched)
    with store.writing():
        assert renewed.wait(60)
    store.close()


def test_a_bucket_that_cannot_be_reached_is_told(in_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = S3Store(in_bucket, retry_s=0.2)
    with pytest.raises(ArchiveUnavailable):
        store.put("blocks/ab/one", b"1")
    with pytest.raises(ArchiveUnavailable):
        list(store.names(""))


def test_wrong_credentials_are_told_without_telling_them(in_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(ArchiveUnavailable, match="refuses our credentials") as found:
        S3Store(in_bucket).get("blocks/ab/one")
    assert "another-secret" not in str(found.value.to_wire(with_private=True))


def test_a_target_without_a_bucket_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        S3Store("s3://")


def test_each_upload_carries_its_checksum(bucket: Bucket, in_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is told what it should have got, by a hash in a signed header."""
    with tampering(bucket.port, b"") as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{way.port}")
        S3Store(in_bucket).put("blocks/ab/one", b"the contents of an object")
    checksum = base64.b64encode(hashlib.sha256(b"the contents of an object").digest())
    assert b"\r\nx-amz-checksum-sha256: " + checksum + b"\r\n" in bytes(way.sent)
    assert b"x-amz-checksum-sha256" in bytes(way.sent).split(b"SignedHeaders=")[1].split(b",")[0]


@pytest.mark.fault
def test_a_bit_that_flips_on_the_way_back_is_noticed(
    bucket: Bucket, in_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody between bucket and us is trusted. The control: the same way without a flip."""
    sealer, contents = Sealer(), random.Random(1).randbytes(1000)
    digest = sealer.digest(contents)
    S3Store(in_bucket).put(block_name(digest), sealer.seal(contents, digest))
    for flipped in (b"never there", contents[500:510]):
        with tampering(bucket.port, flipped) as way:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{way.port}")
            sealed = S3Store(in_bucket).get(block_name(digest))
        if flipped in contents:
            with pytest.raises(ArchiveDamaged):
                sealer.open(sealed, digest)
        else:
            assert sealer.open(sealed, digest) == contents

"""One file: asked for on condition, continued where it broke off, checked; and what keeps it from being had."""

from __future__ import annotations

import hashlib
import os
import ssl
from contextlib import closing
from pathlib import Path

import pytest

from pondkeeper.kinds.download.asking import Asker, Certificates, Manners
from pondkeeper.kinds.download.place import ATTRIBUTE, PlaceRefused, place_of
from pondkeeper.kinds.download.trouble import Stopped, Trouble
from tests.kinds.download.conftest import Fetching
from tests.kinds.download.site import Answer, Asked, Site

BODY = bytes(range(256)) * 1200  # 300 KB: long enough to be continued


@pytest.fixture
def needs_attributes(tmp_path: Path) -> None:
    """Skips where the file system of the tests has no extended attributes: there, files are fetched anew."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, ATTRIBUTE, b"x")
    except OSError:
        pytest.skip("no extended attributes on this file system")


def test_a_file_lies_beside_its_name_until_it_is_kept(site: Site, fetching: Fetching) -> None:
    """Its bytes, size, hash and the server's date; under its final name there is nothing before it is complete and synced."""
    site.file("/a.png", BODY)
    fetched = fetching.fetch("/a.png")
    assert not fetched.place.final.exists()
    assert (fetched.size_bytes, fetched.sha256, fetched.changed) == (len(BODY), hashlib.sha256(BODY).hexdigest(), True)
    final = fetching.keep(fetched)
    assert final.read_bytes() == BODY
    assert final.stat().st_mtime == 1_795_230_000  # Last-Modified
    assert [path.name for path in fetching.folder.iterdir()] == ["a.png"]


@pytest.mark.usefixtures("needs_attributes")
def test_a_file_that_has_not_changed_is_not_sent_again(site: Site, fetching: Fetching) -> None:
    """The second time it is asked for on condition; when the server has another one, that one comes."""
    site.file("/a.png", BODY)
    fetching.keep(fetching.fetch("/a.png"))
    again = fetching.fetch("/a.png")
    assert (again.changed, again.size_bytes, again.sha256) == (False, len(BODY), hashlib.sha256(BODY).hexdigest())
    site.file("/a.png", b"another")
    assert fetching.keep(fetching.fetch("/a.png")).read_bytes() == b"another"
    assert site.statuses("/a.png") == [200, 304, 200]


@pytest.mark.usefixtures("needs_attributes")
def test_what_was_changed_here_or_came_from_elsewhere_is_fetched_anew(site: Site, fetching: Fetching) -> None:
    """A condition is only sent for the very bytes that came from the very URL."""
    site.file("/a.png", BODY)
    fetching.keep(fetching.fetch("/a.png")).write_bytes(b"edited")
    assert fetching.keep(fetching.fetch("/a.png")).read_bytes() == BODY
    site.file("/b.png", b"b", ETag=site.pages["/a.png"](Asked("", {})).headers["ETag"])
    other = fetching.fetch("/a.png", url=site.url + "/b.png")  # the row names another URL for the same file now
    assert fetching.keep(other).read_bytes() == b"b"


def test_existing_files_are_kept_or_replaced_as_the_job_says(site: Site, fetching: Fetching) -> None:
    """`keep` asks nobody, `replace` does not look."""
    site.file("/a.png", BODY)
    (fetching.folder / "a.png").write_bytes(b"mine")
    kept = fetching.fetch("/a.png", existing="keep")
    assert (kept.changed, kept.size_bytes, site.asked) == (False, 4, [])
    assert fetching.fetch("/a.png", existing="replace").changed
    assert fetching.fetch("/a.png", existing="check").changed  # nothing is known of a file that was not downloaded


@pytest.mark.fault
@pytest.mark.usefixtures("needs_attributes")
def test_a_file_that_broke_off_goes_on_where_it_was(site: Site, fetching: Fetching) -> None:
    """What came is kept with what it came from, and only the rest is asked for; the whole is right."""
    site.file("/a.bin", BODY)
    whole = site.pages["/a.bin"]
    site.pages["/a.bin"] = lambda asked: Answer(BODY, 200, whole(asked).headers, cut=200_000)
    with pytest.raises(Trouble, match="broke off") as broken:
        fetching.fetch("/a.bin")
    assert broken.value.passing
    kept = fetching.place("a.bin").part.stat().st_size
    assert 64 * 1024 <= kept <= 200_000  # positive control: there is something to go on from
    site.pages["/a.bin"] = whole
    assert fetching.keep(fetching.fetch("/a.bin")).read_bytes() == BODY
    assert site.asked[-1].headers["range"] == f"bytes={kept}-"
    assert site.statuses("/a.bin") == [200, 206]


@pytest.mark.fault
@pytest.mark.usefixtures("needs_attributes")
def test_a_complete_file_without_its_name_is_not_sent_again(site: Site, fetching: Fetching) -> None:
    """A run that was killed before its batch was finished has left such files; they count as new, since nobody was told."""
    site.file("/a.png", b"small")
    fetching.fetch("/a.png")
    again = fetching.fetch("/a.png")
    assert (again.changed, again.size_bytes, again.sha256) == (True, 5, hashlib.sha256(b"small").hexdigest())
    assert fetching.keep(again).read_bytes() == b"small"
    assert site.statuses("/a.png") == [200, 304]


@pytest.mark.fault
@pytest.mark.usefixtures("needs_attributes")
def test_a_file_that_changed_while_it_was_broken_off_begins_anew(site: Site, fetching: Fetching) -> None:
    """Never one half of the old file and one half of the new one."""
    site.file("/a.bin", BODY)
    headers = site.pages["/a.bin"](Asked("", {})).headers
    site.pages["/a.bin"] = lambda asked: Answer(BODY, 200, headers, cut=200_000)
    with pytest.raises(Trouble):
        fetching.fetch("/a.bin")
    newer = BODY[::-1]
    site.file("/a.bin", newer)
    assert fetching.keep(fetching.fetch("/a.bin")).read_bytes() == newer
    assert "range" in site.asked[-1].headers
    assert site.asked[-1].status == 200


def test_a_checksum_decides(site: Site, fetching: Fetching) -> None:
    """A file that is not what it should be does not come; one that is there and right is not asked for."""
    site.file("/a.png", BODY)
    with pytest.raises(Trouble, match="another md5") as wrong:
        fetching.fetch("/a.png", checksum="0" * 32)
    assert wrong.value.passing
    assert list(fetching.folder.iterdir()) == []
    right = "sha256:" + hashlib.sha256(BODY).hexdigest().upper()
    fetching.keep(fetching.fetch("/a.png", checksum=right))
    asked = len(site.asked)
    assert not fetching.fetch("/a.png", checksum=right).changed
    assert len(site.asked) == asked
    with pytest.raises(Trouble, match="no checksum"):
        fetching.fetch("/a.png", checksum="no hexadecimal")


@pytest.mark.parametrize(
    ("status", "headers", "passing", "wait_s"),
    [(404, {}, False, None), (403, {}, False, None), (500, {}, True, None), (503, {"Retry-After": "7"}, True, 7.0),
     (429, {"Retry-After": "999999"}, True, 300.0), (429, {"Retry-After": "Sat, 21 Nov 1990 03:00:00 GMT"}, True, 0.0),
     (503, {"Retry-After": "soon"}, True, None), (204, {}, False, None)],
)  # fmt: skip
def test_what_a_server_answers_is_for_good_or_for_now(
    site: Site, fetching: Fetching, status: int, headers: dict[str, str], passing: bool, wait_s: float | None
) -> None:
    """404 is for good; 503 passes, after as long as the server says, within reason."""
    site.pages["/a.png"] = lambda asked: Answer(b"no", status, headers)
    with pytest.raises(Trouble) as trouble:
        fetching.fetch("/a.png")
    assert (trouble.value.http_status, trouble.value.passing, trouble.value.wait_s) == (status, passing, wait_s)


def test_a_server_that_is_not_there_is_unreachable(fetching: Fetching) -> None:
    """A refused connection passes, and all files of the server share it; its message names no URL."""
    with pytest.raises(Trouble) as trouble:
        fetching.fetch("/a.png", url="http://127.0.0.1:1/secret-token/a.png")
    assert (trouble.value.passing, trouble.value.unreachable) == (True, True)
    assert "secret-token" not in trouble.value.message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://", "http://[::1", "nothing", "http://a\0b/"])
def test_only_the_web_is_asked(fetching: Fetching, url: str) -> None:
    """What is no HTTP URL is refused for good."""
    with pytest.raises(Trouble) as trouble:
        fetching.fetch("/a.png", url=url)
    assert not trouble.value.passing


def test_the_authorization_stays_with_its_host(site: Site, fetching: Fetching) -> None:
    """A redirect is followed, with the headers of the job, and without the Authorization when it leads elsewhere."""
    manners = Manners({"X-Team": "artemis"}, authorization="Bearer sesame", timeout_s=20.0)
    with Site().running() as other:
        other.file("/there.png", BODY)
        site.file("/here.png", BODY)
        site.pages["/a.png"] = lambda asked: Answer(b"moved", 302, {"Location": other.url + "/there.png"})
        site.pages["/b.png"] = lambda asked: Answer(b"moved", 301, {"Location": "/here.png"})
        fetching.fetch("/a.png", manners=manners)
        fetching.fetch("/b.png", manners=manners)
        assert other.asked[0].headers["x-team"] == "artemis"
        assert "authorization" not in other.asked[0].headers
    assert [asked.headers.get("authorization") for asked in site.asked] == ["Bearer sesame"] * 3


def test_only_the_hosts_of_the_job_are_asked(site: Site, fetching: Fetching) -> None:
    """Also not by way of a redirect from one that may be asked."""
    site.pages["/a.png"] = lambda asked: Answer(b"moved", 302, {"Location": "http://localhost:1/internal"})
    with pytest.raises(Trouble, match="localhost is not among"):
        fetching.fetch("/a.png", manners=Manners(hosts=("127.0.0.*",)))
    with pytest.raises(Trouble, match="not among"):
        fetching.fetch("/a.png", manners=Manners(hosts=("*.example.com",)))
    assert len(site.asked) == 1


def test_redirects_end(site: Site, fetching: Fetching) -> None:
    """A server that redirects for ever is given up."""
    site.pages["/a.png"] = lambda asked: Answer(b"", 302, {"Location": "/a.png"})
    with pytest.raises(Trouble, match="redirected more than"):
        fetching.fetch("/a.png")


def test_a_file_may_not_be_larger_than_the_job_allows(site: Site, fetching: Fetching) -> None:
    """Neither by what the server promises, nor by what it sends."""
    site.file("/a.bin", BODY)
    with pytest.raises(Trouble, match="larger than") as trouble:
        fetching.fetch("/a.bin", max_file_bytes=1000)
    assert not trouble.value.passing


def test_a_stopped_run_ends_a_download_in_its_midst(site: Site, fetching: Fetching) -> None:
    """What has come stays, for the next run."""
    site.file("/a.bin", BODY)
    fetching.stopping.set()
    with pytest.raises(Stopped):
        fetching.fetch("/a.bin")
    assert not fetching.place("a.bin").final.exists()


@pytest.mark.parametrize("file", ["../a", "a/../../b", "/etc/passwd", "a//b", ".", "", None, "a\0b", ".a.pictures.part", "x" * 260, "a\nb"])
def test_a_name_from_data_does_not_leave_the_folder(tmp_path: Path, file: str | None) -> None:
    """Nor is it a name that unfinished files have, or none at all."""
    with pytest.raises(PlaceRefused):
        place_of(tmp_path, file, "pictures")
    assert place_of(tmp_path, "a/b c/ü.png", "pictures").final == tmp_path / "a" / "b c" / "ü.png"


def test_files_in_folders_of_their_own(site: Site, tmp_path: Path) -> None:
    """Folders that a name goes through are made."""
    site.file("/a.png", BODY)
    fetching = Fetching(site, tmp_path / "deep" / "er")
    assert fetching.keep(fetching.fetch("/a.png")).read_bytes() == BODY


def test_certificates_are_read_once_and_not_for_plain_http(site: Site) -> None:
    """And what is asked by https is checked by them."""
    site.file("/a", b"hello")
    read: list[ssl.SSLContext] = []
    certificates = Certificates()

    def tls() -> ssl.SSLContext:
        read.append(certificates())
        return read[-1]

    for _ in range(2):
        asker = Asker(Manners(timeout_s=20.0), tls)
        with closing(asker):
            asker.ask(f"{site.url}/a", {}).close()
            before = len(read)
            with pytest.raises(Trouble, match="cannot be reached"):
                asker.ask(site.url.replace("http:", "https:") + "/a", {})
            assert len(read) == before + 1
    first, second = read
    assert first is second
    assert (first.verify_mode, first.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert first.cert_store_stats()["x509_ca"] or not ssl.create_default_context().cert_store_stats()["x509_ca"]

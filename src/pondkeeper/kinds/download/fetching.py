"""One file: asked for on condition, continued where it broke off, checked, and left complete beside its final name."""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from pondkeeper.kinds.download.asking import Asker, drain
from pondkeeper.kinds.download.place import Origin, Part, Place, digest_of, hash_of_url
from pondkeeper.kinds.download.trouble import Stopped, Trouble
from pondkeeper.kinds.download.wanted import Wanted

LEAST_RESUMED_BYTES: Final = 64 * 1024
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_PAUSE_S: Final = 300.0
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_HASHES: Final = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has come. `changed`: it lies complete in its part, unsynced; otherwise the one that was there is right."""

    wanted: Wanted
    place: Place
    size_bytes: int
    sha256: str
    etag: str | None
    changed: bool


class Fetcher:
    """Fetches files, one after the other. For one thread."""

    def __init__(self, asker: Asker, *, existing: str, max_file_bytes: int, stopping: threading.Event) -> None:
        self._asker = asker
        self._existing = existing
        self._max_file_bytes = max_file_bytes
        self._stopping = stopping

    def fetch(self, wanted: Wanted, place: Place) -> Fetched:
        """Get the file. Raises Trouble, Stopped, or OSError when the disk is the trouble."""
        expected = _Expected.of(wanted.checksum)
        there = self._there(wanted, place, expected)
        if isinstance(there, Fetched):
            return there
        part = self._part(wanted, place)
        kept = part.origin if part is not None and part.is_complete else there
        headers = _conditions(kept, part)
        response = self._asker.ask(wanted.url, headers)
        try:
            if response.status_code == 304 and kept is not None:
                if expected is not None:
                    expected.check(place)  # Why the part: a file that is there with the right checksum is not asked for
                return Fetched(wanted, place, kept.size_bytes, kept.sha256, _etag(kept.validator), changed=kept is not there)
            if response.status_code == 416 and "Range" in headers:
                place.forget_part()
                raise Trouble("the server has no such range of the file", http_status=416, passing=True, wait_s=0.0)
            _refuse_status(response)
            return self._receive(response, wanted, place, part.size_bytes if part is not None else 0, expected)
        except httpx.TimeoutException as error:
            raise Trouble("the server fell silent in the midst of the file", passing=True, unreachable=True) from error
        except httpx.HTTPError as error:
            raise Trouble(f"the file broke off: {str(error)[:200]}", passing=True, unreachable=True) from error
        finally:
            drain(response) if response.status_code in (304, 416) or response.is_error else response.close()

    def _there(self, wanted: Wanted, place: Place, expected: _Expected | None) -> Fetched | Origin | None:
        """The file that is there already, if it will do; what it came from, if the server has to be asked."""
        if self._existing == "replace":
            return None
        try:
            origin = place.complete()
        except FileNotFoundError:
            return None
        if expected is not None or self._existing == "keep":
            sha256 = hashlib.sha256()
            checked = expected.hash() if expected else None
            digest_of(place.final, sha256, *([checked] if checked else []))
            if expected is None or expected.fits(checked):
                etag = _etag(origin.validator) if origin else None
                return Fetched(wanted, place, place.final.stat().st_size, sha256.hexdigest(), etag, changed=False)
            return None
        return origin if origin is not None and origin.url == hash_of_url(wanted.url) and origin.validator else None

    def _part(self, wanted: Wanted, place: Place) -> Part | None:
        """What has come of the file before, if it is of use: all of it, or enough to go on from."""
        part = place.begun()
        if part is None or part.origin.url != hash_of_url(wanted.url) or not part.origin.validator:
            return None
        # Why not by weak validators: what is equal by one need not be equal byte for byte.
        is_long = part.size_bytes >= LEAST_RESUMED_BYTES and not part.origin.validator.startswith("W/")
        return part if part.is_complete or is_long else None

    def _receive(
        self, response: httpx.Response, wanted: Wanted, place: Place, kept_bytes: int, expected: _Expected | None
    ) -> Fetched:
        goes_on = response.status_code == 206
        if goes_on and _begins_at(response) != kept_bytes:
            place.forget_part()
            raise Trouble("the server sent another range than it was asked for", http_status=206, passing=True, wait_s=0.0)
        etag, validator = response.headers.get("etag"), _validator(response)
        sha256 = hashlib.sha256()
        checked = expected.hash() if expected else None
        hashes = [sha256, *([checked] if checked else [])]
        if goes_on:
            digest_of(place.part, *hashes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_APPEND if goes_on else os.O_TRUNC)
        part = _opened(place.part, flags)
        try:
            if not goes_on and _length(response) >= LEAST_RESUMED_BYTES:
                Origin(hash_of_url(wanted.url), validator).write(part)
            size_bytes = self._pour(response, part, hashes, kept_bytes if goes_on else 0)
            if expected is not None and not expected.fits(checked):
                raise expected.differs(place)
            Origin(hash_of_url(wanted.url), validator, size_bytes, sha256.hexdigest()).write(part)
            _date(part, response.headers.get("last-modified"))
        finally:
            os.close(part)
        return Fetched(wanted, place, size_bytes, sha256.hexdigest(), etag, changed=True)

    def _pour(self, response: httpx.Response, part: int, hashes: list[Any], size_bytes: int) -> int:
        """Write the body into the part; its size in the end."""
        self._refuse_size(size_bytes + _length(response))
        is_short = 0 < _length(response) < LEAST_RESUMED_BYTES  # it is not worth breaking off
        for block in response.iter_bytes() if "content-encoding" in response.headers else response.iter_raw():
            if self._stopping.is_set() and not is_short:
                raise Stopped
            size_bytes += len(block)
            self._refuse_size(size_bytes)
            for each in hashes:
                each.update(block)
            _write(part, block)
        return size_bytes

    def _refuse_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_file_bytes:
            raise Trouble(f"the file is larger than `max_file_bytes` ({self._max_file_bytes:,} bytes)")


@dataclass(frozen=True, slots=True)
class _Expected:
    """The checksum that a file must have."""

    name: str
    digest: str

    @staticmethod
    def of(checksum: str | None) -> _Expected | None:
        if checksum is None or checksum == "":
            return None
        digest = checksum.strip().lower().rpartition(":")[2]
        name = _HASHES.get(len(digest))
        if name is None or not re.fullmatch("[0-9a-f]+", digest):
            raise Trouble(f"{checksum[:140]!r} is no checksum: md5, sha1, sha256 or sha512 in hexadecimal")
        return _Expected(name, digest)

    def hash(self) -> Any:
        return hashlib.new(self.name, usedforsecurity=False)

    def fits(self, computed: Any) -> bool:
        return bool(computed.hexdigest() == self.digest)

    def check(self, place: Place) -> None:
        """Raise Trouble when the complete part is not what the file should be by now."""
        computed = self.hash()
        digest_of(place.part, computed)
        if not self.fits(computed):
            raise self.differs(place)

    def differs(self, place: Place) -> Trouble:
        """What is raised about a part that is not what it should be, and is thrown away."""
        place.forget_part()
        return Trouble(f"the file has another {self.name} than it should", passing=True)


def _conditions(kept: Origin | None, part: Part | None) -> dict[str, str]:
    """Headers by which the server need not send what is here."""
    headers: dict[str, str] = {}
    if kept is not None:
        headers["If-None-Match" if _etag(kept.validator) else "If-Modified-Since"] = kept.validator
    if part is not None and not part.is_complete:
        headers |= {"Range": f"bytes={part.size_bytes}-", "If-Range": part.origin.validator}
    return headers


def _refuse_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 206, 203):
        return
    text = f"the server answered {status} {response.reason_phrase}".rstrip()
    wait_s = _retry_after(response.headers.get("retry-after"))
    raise Trouble(text, http_status=status, passing=status in PASSING, wait_s=wait_s, unreachable=status >= 500)


def _retry_after(text: str | None) -> float | None:
    """How long the server wants to be left alone; bounded, so that a mistake of it does not stop a run for days."""
    if not text:
        return None
    if text.strip().isdigit():
        return min(float(text), LONGEST_PAUSE_S)
    moment = _moment(text)
    return None if moment is None else min(max(0.0, moment - time.time()), LONGEST_PAUSE_S)


def _moment(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _date(descriptor: int, last_modified: str | None) -> None:
    """Give the file the time at which the server's last changed."""
    if (moment := _moment(last_modified)) is not None and moment >= 0:
        os.utime(descriptor, (time.time(), moment))


def _validator(response: httpx.Response) -> str:
    """What to ask with next time. None for a body that was encoded on its way: its ranges are not the file's."""
    if "content-encoding" in response.headers and response.headers["content-encoding"] != "identity":
        return ""
    return str(response.headers.get("etag") or response.headers.get("last-modified") or "")


def _etag(validator: str) -> str | None:
    return validator if validator.startswith(('"', 'W/"')) else None


def _begins_at(response: httpx.Response) -> int:
    found = _RANGE.match(response.headers.get("content-range", ""))
    return int(found[1]) if found else -1


def _length(response: httpx.Response) -> int:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdigit() and len(text) < 19 else 0


def _opened(path: Path, flags: int) -> int:
    """The open file, its folder made where it is missing."""
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


def _write(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]

"""Where a replica fetches from, and how: another keeper, over HTTP, or an archive. Both give manifests, pages and blocks.

Standard library only: the follower is a child, which loads neither the web stack nor the client.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from pondkeeper import __version__
from pondkeeper.archive.history import newest, read_manifest
from pondkeeper.archive.keys import ArchiveKey
from pondkeeper.archive.manifest import ArchivedVersion, Manifest
from pondkeeper.archive.names import block_name, page_name
from pondkeeper.archive.opening import Archive, identify, open_store
from pondkeeper.archive.sealing import Sealer
from pondkeeper.errors import (
    ArchiveDamaged,
    ArchiveUnavailable,
    ObjectMissing,
    PondkeeperError,
    PrimaryUnreachable,
    RequestRefused,
    VersionNotArchived,
)

CONNECT_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 10.0
LATE_S: Final = 4.0
"""How much longer than we asked it to wait a primary may be silent before it is taken to be cut off."""
BLOCKS_AT_ONCE: Final = 32
PAGES_AT_ONCE: Final = 64
ARCHIVE_THREADS: Final = 8
ARCHIVE_POLL_S: Final = 1.0
MISSING: Final = 0xFFFFFFFF
LENGTH: Final = struct.Struct("!I")
MAX_OBJECT_BYTES: Final = 16 * 1024 * 1024
MAX_JSON_BYTES: Final = 64 * 1024 * 1024


class Superseded(Exception):
    """What is asked for has gone: a newer version has taken the place of the one that was being fetched."""


@dataclass(frozen=True)
class Offered:
    """The newest version there, or None when it is the one that we have. `as_of`: when that was true, by our clock."""

    manifest: Manifest | None
    as_of: float


class Origin(Protocol):
    """One database at a primary or in an archive. One thread at a time."""

    @property
    def address(self) -> str:
        """Where it is, for people; without credentials."""
        ...

    def offer(self, after: int, lineage: str, wait_s: float) -> Offered:
        """Wait at most so long for a version that follows `after`. Raises PondkeeperError."""
        ...

    def pages(self, digests: Sequence[str]) -> list[bytes]:
        """Pages of the tree, each proved. Raises Superseded, PondkeeperError."""
        ...

    def blocks(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
        """The contents of blocks in this order, each proved, and the bytes that came for it. Raises as `pages`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Keeper:
    """How a keeper is reached. `replica`: our name for ourselves, by which it knows what to keep for us."""

    url: str
    key: str | None
    replica: str
    ca_file: str | None = None


class KeeperOrigin:
    """A database of another keeper, over one connection that is made anew when it was lost."""

    def __init__(self, keeper: Keeper, database: str) -> None:
        self._http = KeeperConnection(keeper)
        self._keeper = keeper
        self._path = f"/v1/databases/{quote(database, safe='')}/replication"
        self._name = database
        self._sealer = Sealer()

    @property
    def address(self) -> str:
        return self._keeper.url

    def offer(self, after: int, lineage: str, wait_s: float) -> Offered:
        asked = {"replica": self._keeper.replica, "after": after, "lineage": lineage, "wait_s": f"{wait_s:g}"}
        began_at = time.monotonic()
        answer = self._http.asked("GET", f"{self._path}?{urlencode(asked)}", silence_s=wait_s + LATE_S)
        data = answer.read()
        # Why so: what it answers was true when it answered, which was not before it had waited that long.
        as_of = began_at + float(answer.getheader("Pondkeeper-Waited-S", "0"))
        if answer.status == http.client.NO_CONTENT:
            return Offered(None, as_of)
        try:
            fields = msgspec.json.decode(data, type=dict[str, Any])
            name = f"databases/{self._name}/versions/{answer.getheader('Pondkeeper-Manifest', '')}"
            manifest = Manifest.decode(data, name, self._sealer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArchiveDamaged("The primary sent what is no manifest.", private=str(error)) from error
        if fields["database"] != self._name:
            raise ArchiveDamaged("The primary sent the manifest of another database.")
        return Offered(manifest, as_of)

    def pages(self, digests: Sequence[str]) -> list[bytes]:
        found: list[bytes] = []
        for at in range(0, len(digests), PAGES_AT_ONCE):
            wanted = digests[at : at + PAGES_AT_ONCE]
            for digest, page in zip(wanted, self._objects("pages", wanted), strict=True):
                if self._sealer.digest(page).hex() != digest:
                    raise ArchiveDamaged("A page came from the primary that is not the one asked for.", object=digest)
                found.append(page)
        return found

    def blocks(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
        for at in range(0, len(digests), BLOCKS_AT_ONCE):
            wanted = digests[at : at + BLOCKS_AT_ONCE]
            for digest, sealed in zip(wanted, self._objects("blocks", [each.hex() for each in wanted]), strict=True):
                yield self._sealer.open(sealed, digest), len(sealed)

    def close(self) -> None:
        self._http.close()

    def _objects(self, kind: str, digests: Sequence[str]) -> Iterator[bytes]:
        """The objects of one request, each with its length before it. Raises Superseded at the first that is missing."""
        body = {"replica": self._keeper.replica, "digests": list(digests)}
        answer = self._http.asked("POST", f"{self._path}/{kind}", body)
        try:
            for _ in digests:
                yield self._object(answer)
        finally:
            self._http.done_with(answer)

    def _object(self, answer: http.client.HTTPResponse) -> bytes:
        with self._http.lost_is_told():
            (length,) = LENGTH.unpack(_exactly(answer, LENGTH.size))
            if length == MISSING:
                raise Superseded
            if length > MAX_OBJECT_BYTES:
                raise ArchiveDamaged("The primary sent an object that is too large to be one.")
            return _exactly(answer, length)


class KeeperConnection:
    """HTTP/1.1 to one keeper."""

    def __init__(self, keeper: Keeper) -> None:
        parts = urlsplit(keeper.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestRefused("The primary's URL must look like https://host:8420.", remedy="Correct the URL.")
        self._keeper = keeper
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._connection: http.client.HTTPConnection | None = None

    def asked(self, method: str, path: str, body: Any = None, silence_s: float = SILENCE_S) -> http.client.HTTPResponse:
        """The head of a good answer. Raises what the keeper answers as an error, and PrimaryUnreachable."""
        with self.lost_is_told():
            self._connected().sock.settimeout(silence_s)
            answer = self._sent(method, self._prefix + path, None if body is None else msgspec.json.encode(body))
            if answer.status < http.client.MULTIPLE_CHOICES:
                return answer
            raise _error_of(answer)

    def done_with(self, answer: http.client.HTTPResponse) -> None:
        """The connection can be used again if the answer was read to its end; else it is closed."""
        if not answer.isclosed():
            try:
                rest = answer.read(1)
            except (OSError, http.client.HTTPException):
                rest = b"lost"
            if rest or not answer.isclosed():
                self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def lost_is_told(self) -> _Lost:
        """Turns a lost connection into PrimaryUnreachable."""
        return _Lost(self)

    def unreachable(self, error: Exception) -> PrimaryUnreachable:
        self.close()
        return PrimaryUnreachable(f"The primary {self._keeper.url} cannot be reached.", private=f"{type(error).__name__}: {error}")

    def _sent(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"pondkeeper-replica/{__version__}"}
        if self._keeper.key:
            headers["Authorization"] = f"Bearer {self._keeper.key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        is_kept = self._connection is not None
        try:
            connection = self._connected()
            connection.request(method, path, body, headers)
            return connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if not is_kept:
                raise
            # Why again: a kept connection may have been closed while nothing went over it; all we ask may be asked twice.
            connection = self._connected()
            connection.request(method, path, body, headers)
            return connection.getresponse()

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None or self._connection.sock is None:  # Why the second: the primary may have closed it
            if self._secure:
                context = ssl.create_default_context(cafile=self._keeper.ca_file)
                made: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=CONNECT_TIMEOUT_S, context=context
                )
            else:
                made = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
            made.connect()
            made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = made
        return self._connection


class _Lost:
    """While within, a lost connection is PrimaryUnreachable."""

    def __init__(self, http_: KeeperConnection) -> None:
        self._http = http_

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, http.client.HTTPException)):
            raise self._http.unreachable(error) from error


def _exactly(answer: http.client.HTTPResponse, length: int) -> bytes:
    data = answer.read(length)
    if len(data) != length:
        raise http.client.IncompleteRead(data, length - len(data))
    return data


def _error_of(answer: http.client.HTTPResponse) -> PondkeeperError:
    data = answer.read(MAX_JSON_BYTES)
    try:
        return PondkeeperError.from_wire(msgspec.json.decode(data)["error"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return PrimaryUnreachable(f"The primary answered HTTP {answer.status}, and not as a keeper does.")


def databases_of(keeper: Keeper) -> list[str]:
    """The databases that the key may see there. Raises PondkeeperError."""
    connection = KeeperConnection(keeper)
    try:
        answer = connection.asked("GET", "/v1/databases")
        with connection.lost_is_told():
            listed = msgspec.json.decode(answer.read())
        return [each["name"] for each in listed["databases"]]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise PrimaryUnreachable(f"{keeper.url} does not answer as a keeper does.", private=str(error)) from error
    finally:
        connection.close()


class ArchiveOrigin:
    """A database in an archive: what its keeper has archived, found by listing."""

    def __init__(self, archive: Archive, database: str) -> None:
        self._archive = archive
        self._database = database
        self._newest: ArchivedVersion | None = None
        self._threads = ThreadPoolExecutor(ARCHIVE_THREADS)

    @property
    def address(self) -> str:
        return self._archive.store.address

    def offer(self, after: int, lineage: str, wait_s: float) -> Offered:  # noqa: ARG002  Why: the follower compares it
        deadline = time.monotonic() + wait_s
        while True:
            began_at = time.monotonic()
            found = self._newest = newest(self._archive.store, self._database, self._newest)
            if found is not None and found.version != after:
                try:
                    manifest = read_manifest(self._archive.store, self._archive.sealer, found)
                except VersionNotArchived:  # Why: it was pruned between the two; then there is a newer one.
                    self._newest = None
                    continue
                return Offered(manifest, began_at)
            # Why at least as long as ten listings take: a folder of a day of seconds has 86,400 names.
            pause_s = max(ARCHIVE_POLL_S, 10 * (time.monotonic() - began_at))
            if time.monotonic() + pause_s > deadline:
                time.sleep(max(0.0, deadline - time.monotonic()))
                return Offered(None, began_at)
            time.sleep(pause_s)

    def pages(self, digests: Sequence[str]) -> list[bytes]:
        return [self._opened(page_name(each), each) for each in map(bytes.fromhex, digests)]

    def blocks(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
        def fetched(digest: bytes) -> tuple[bytes, int]:
            contents = self._opened(block_name(digest), digest)
            return contents, len(contents)

        for at in range(0, len(digests), BLOCKS_AT_ONCE):
            yield from self._threads.map(fetched, digests[at : at + BLOCKS_AT_ONCE])

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _opened(self, name: str, digest: bytes) -> bytes:
        try:
            return self._archive.sealer.open(self._archive.store.get(name), digest)
        except ObjectMissing as error:  # Why: pruned while we fetched it, so there is a newer version.
            raise Superseded from error


@contextmanager
def open_to_read(target: str, key_file: str) -> Iterator[Archive]:
    """An archive of which nothing is to be written. Raises ArchiveUnavailable while there is none, ArchiveKeyInvalid."""
    key = ArchiveKey.read(Path(key_file)) if key_file else None
    store = open_store(target)
    try:
        try:
            identify(store, key)
        except ObjectMissing as error:
            raise ArchiveUnavailable("There is no archive yet at that place.", private=target) from error
        yield Archive(store, Sealer(key))
    finally:
        store.close()


def is_keeper(address: str) -> bool:
    """Whether this names a keeper, and not an archive."""
    return address.startswith(("http://", "https://"))


def read_key(file: Path) -> str:
    """The API key in a file. Raises RequestRefused."""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestRefused("The file of the primary's key cannot be read.", private=str(error)) from error

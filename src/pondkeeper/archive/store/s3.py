"""An S3-compatible bucket as a store: every upload carries a checksum that the server checks, every call is tried again.

Credentials, region and endpoint come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
`AWS_ENDPOINT_URL`, web identity and instance roles, as everywhere). Plain HTTP is spoken where the endpoint says `http://`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from pondkeeper.archive.store.claims import Claim, Claims
from pondkeeper.archive.store.protocol import Stored
from pondkeeper.errors import ArchiveUnavailable, InvalidRequest, ObjectMissing

if TYPE_CHECKING:
    from obstore.store import S3Store as Bucket

_RETRY_S = 20.0
_REQUEST_S = 60.0
_CONNECT_S = 10.0
_AT_ONCE = 32
_DELETE_AT_ONCE = 1000
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")




class S3Store:
    """Objects below a prefix of a bucket. An upload is durable when the server has answered, so `flush` has nothing to do."""

    def __init__(self, target: str, *, retry_s: float = _RETRY_S, request_s: float = _REQUEST_S) -> None:
        bucket, _, prefix = target.removeprefix("s3://").strip("/").partition("/")
        self._target = f"s3://{bucket}/{prefix}".rstrip("/")
        if not bucket:
            raise InvalidRequest("The archive's target names no bucket: `s3://bucket/prefix`.")
        self._bucket = _open(f"s3://{bucket}", retry_s, request_s)
        self._prefix = f"{prefix}/" if prefix else ""
        self._claims = Claims(self)

    @property
    def address(self) -> str:
        return self._target

    @property
    def at_once(self) -> int:
        return _AT_ONCE

    def get(self, name: str) -> bytes:
        import obstore

        with _bucket_errors(name):
            return bytes(obstore.get(self._bucket, self._prefix + name).bytes())

    def has(self, name: str) -> bool:
        return self.changed_at(name) is not None

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with _bucket_errors(name):
            obstore.put(self._bucket, self._prefix + name, data)

    @contextlib.contextmanager
    def putting(self) -> Iterator[_Uploads]:
        yield _Uploads(self)

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        return (stored.name for stored in self._listed(prefix, after) if stored.name > after)

    def stored(self, prefix: str) -> Iterator[Stored]:
        return self._listed(prefix, "")

    def _listed(self, prefix: str, after: str) -> Iterator[Stored]:
        import obstore

        offset = self._prefix + after if after else None
        with _bucket_errors(prefix):
            pages = iter(obstore.list(self._bucket, self._whole_prefix(prefix), offset=offset))
        while True:
            with _bucket_errors(prefix):
                page = next(pages, None)
            if page is None:
                return
            for entry in page:
                yield Stored(entry["path"].removeprefix(self._prefix), entry["size"])

    def folders(self, prefix: str) -> list[str]:
        import obstore

        with _bucket_errors(prefix):
            found = obstore.list_with_delimiter(self._bucket, self._whole_prefix(prefix))["common_prefixes"]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def delete(self, names: Sequence[str]) -> None:
        import obstore

        for at in range(0, len(names), _DELETE_AT_ONCE):
            with contextlib.suppress(ObjectMissing), _bucket_errors(names[at]):
                obstore.delete(self._bucket, [self._prefix + name for name in names[at : at + _DELETE_AT_ONCE]])

    def writing(self, timeout_s: float = 60.0) -> contextlib.AbstractContextManager[Claim]:
        return self._claims.writing(timeout_s)

    def removing(self, timeout_s: float = 60.0) -> contextlib.AbstractContextManager[Claim]:
        return self._claims.removing(timeout_s)

    def changed_at(self, name: str) -> float | None:
        """When the object was put, by the server's clock (Unix time); None when it is not there."""
        import obstore

        try:
            with _bucket_errors(name):
                return obstore.head(self._bucket, self._prefix + name)["last_modified"].timestamp()
        except ObjectMissing:
            return None

    def ages(self, prefix: str) -> dict[str, float]:
        """When each object below the prefix was put, by the server's clock."""
        import obstore

        with _bucket_errors(prefix):
            entries = [entry for page in obstore.list(self._bucket, self._whole_prefix(prefix)) for entry in page]
        return {entry["path"].removeprefix(self._prefix): entry["last_modified"].timestamp() for entry in entries}

    def close(self) -> None:
        """Let go of our claim; the connections end with the object."""
        self._claims.close()

    def _whole_prefix(self, prefix: str) -> str | None:
        return (self._prefix + prefix).rstrip("/") or None


class _Uploads:
    """Uploads under way."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def put_missing(self, name: str, make: Callable[[], bytes]) -> int:
        with self._lock:
            if name in self._begun:
                return 0
            self._begun.add(name)
        if self._store.has(name):
            return 0
        data = make()
        self._store.put(name, data)
        return len(data)

    def flush(self) -> None:
        """The server has answered each upload."""


def _open(url: str, retry_s: float, request_s: float) -> Bucket:
    try:
        from obstore.store import S3Store as Bucket
    except ImportError as error:
        raise InvalidRequest(
            "Archives in buckets need the package obstore.", remedy="`pip install 'pondkeeper[archive]'`"
        ) from error
    with _bucket_errors(url):
        return Bucket.from_url(
            url,
            config={"checksum_algorithm": "SHA256"},
            client_options={
                "timeout": timedelta(seconds=request_s),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "allow_http": any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS),
            },
            retry_config={"retry_timeout": timedelta(seconds=retry_s), "max_retries": 10},
        )


@contextlib.contextmanager
def _bucket_errors(name: str) -> Iterator[None]:
    """Turn what a bucket may refuse into our errors. Trap: the library's texts may quote URLs, so they stay private."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing(private=str(error), object=name) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise ArchiveUnavailable(
            "The archive's bucket refuses our credentials.",
            remedy="See AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the keeper's environment, and the bucket's policy.",
            private=str(error),
        ) from error
    except (BaseError, OSError, ValueError) as error:
        raise ArchiveUnavailable(private=str(error)) from error

"""An archive is a store and a sealer that belong together: the store says whether it is encrypted, and by which key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pondkeeper.archive.keys import ArchiveKey
from pondkeeper.archive.names import IDENTITY
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.store.protocol import Fetching, Store
from pondkeeper.errors import ArchiveDamaged, ArchiveKeyInvalid, ArchiveUnavailable, InvalidRequest, ObjectMissing

FORMAT = 1
_BUCKET = "s3://"


@dataclass(frozen=True)
class Archive:
    """A store with the right key."""

    store: Store
    sealer: Sealer


@dataclass(frozen=True)
class _Identity:
    """`key` recognises the key, and is empty for an archive that is not encrypted."""

    format: int
    key: str


def open_store(target: str) -> Store:
    """The store at a folder (absolute) or `s3://bucket/prefix`. Nothing is read or written yet."""
    if target.startswith(_BUCKET):
        from pondkeeper.archive.store.s3 import S3Store

        return S3Store(target)
    path = Path(target).expanduser()
    if not path.is_absolute():
        raise InvalidRequest("The folder of an archive is named by its absolute path.", private=target)
    return LocalStore(path)


@contextmanager
def open_archive(target: str, key_file: Path | None = None, *, make: bool = True) -> Iterator[Archive]:
    """The archive at a target. `make`: a new one is begun where there is none; without it ArchiveUnavailable is raised.

    Raises ArchiveKeyInvalid when the key is not its own.
    """
    key = None if key_file is None else ArchiveKey.read(key_file)
    store = open_store(target)
    try:
        _identify(store, key, make)
        yield Archive(store, Sealer(key))
    finally:
        store.close()


def _identify(store: Store, key: ArchiveKey | None, make: bool) -> None:
    try:
        identify(store, key, make=make)
    except ObjectMissing as error:
        raise ArchiveUnavailable("There is no archive at that place.", private=store.address) from error


def identify(store: Fetching, key: ArchiveKey | None, *, make: bool = False) -> None:
    """See that the key is that of the store; `make` writes the identity of a new one (`store` is then a `Store`)."""
    wanted = _Identity(FORMAT, "" if key is None else key.mark)
    try:
        data = store.get(IDENTITY)
    except ObjectMissing:
        if not make:
            raise
        store.put(IDENTITY, msgspec.json.encode(wanted))  # type: ignore[attr-defined]  # Why: see the docstring
        return
    try:
        found = msgspec.json.decode(data, type=_Identity)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArchiveDamaged(object=IDENTITY) from error
    if data != msgspec.json.encode(found):  # Why: what a parser forgives is not what we wrote.
        raise ArchiveDamaged(object=IDENTITY)
    if found.format != FORMAT:
        raise ArchiveKeyInvalid("The archive was written by a newer Pondkeeper.", remedy="Install that one.")
    if found.key != wanted.key:
        raise ArchiveKeyInvalid(_mismatch(found, wanted))


def _mismatch(found: _Identity, wanted: _Identity) -> str:
    if not found.key:
        return "There is a key, and the archive is not encrypted."
    return "The key is not the archive's." if wanted.key else "The archive is encrypted, and there is no key."

"""What one archived version is: JSON that carries its own checksum, and is written in one way only.

Its name holds version and time, so that listing, choosing a point in time and retention read names and no contents.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import msgspec

from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.tree import BLOCK_BYTES, PAGE_BLOCKS, block_count
from pondkeeper.errors import ArchiveDamaged, InvalidRequest
from pondkeeper.files.paths import is_database_name

FORMAT = 1
_NAME = re.compile(r"(\d{12})-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z\Z", re.ASCII)
_NAME_TIME = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Manifest:
    """A version as it can be restored. `created_at` is when it was published (UTC, milliseconds).

    `lineage` names the unbroken history it belongs to: a restore or a promotion begins a new one, version numbers only
    grow. `pages` are the digests (hexadecimal) of the pages of its tree. `iteration` and `identity` are the file's own.
    """

    database: str
    version: int
    created_at: str
    lineage: str
    size_bytes: int
    pages: tuple[str, ...]
    iteration: int = 0
    identity: str = ""
    storage_version: int = 0
    library_version: str = ""
    block_bytes: int = BLOCK_BYTES
    format: int = FORMAT

    @property
    def name(self) -> str:
        return manifest_name(self.database, self.version, parse_time(self.created_at))

    def encode(self, sealer: Sealer) -> bytes:
        fields = asdict(self)
        checksum = sealer.digest(msgspec.json.encode(fields, order="sorted")).hex()
        return msgspec.json.encode({**fields, "checksum": checksum})

    @classmethod
    def decode(cls, data: bytes, name: str, sealer: Sealer) -> Manifest:
        """The manifest under this name. Raises ArchiveDamaged for a single bit that is not as it was written."""
        try:
            fields = msgspec.json.decode(data, type=dict)
            fields.pop("checksum", None)
            found = msgspec.convert(fields, cls)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise ArchiveDamaged(object=name) from error
        # Why written again: what a parser forgives (spaces, a field twice, one it does not know) is not what we wrote.
        if found.encode(sealer) != data or found.name != name or not found.is_sound:
            raise ArchiveDamaged(object=name)
        return found

    @property
    def is_sound(self) -> bool:
        pages = -(-block_count(self.size_bytes) // PAGE_BLOCKS)
        return self.format == FORMAT and self.block_bytes == BLOCK_BYTES and len(self.pages) == pages


@dataclass(frozen=True, order=True)
class ArchivedVersion:
    """One version as its manifest's name tells of it."""

    version: int
    created_at: datetime
    database: str

    @property
    def name(self) -> str:
        return manifest_name(self.database, self.version, self.created_at)


def versions_prefix(database: str) -> str:
    if not is_database_name(database):
        raise InvalidRequest("That is no name of a database.", database=database)
    return f"databases/{database}/versions/"


def manifest_name(database: str, version: int, created_at: datetime) -> str:
    time = created_at.astimezone(UTC).strftime(_NAME_TIME)[:-3]
    return f"{versions_prefix(database)}{version:012d}-{time}Z"


def parse_name(database: str, name: str) -> ArchivedVersion | None:
    """What the name of a manifest says; None for another object's."""
    found = _NAME.match(name.removeprefix(versions_prefix(database)))
    if found is None:
        return None
    version, year, month, day, hour, minute, second, milliseconds = map(int, found.groups())
    try:  # Why not strptime: ten times as slow, and there are 86,400 names in a day.
        created_at = datetime(year, month, day, hour, minute, second, 1000 * milliseconds, tzinfo=UTC)
    except ValueError:
        return None
    return ArchivedVersion(version, created_at, database)


def format_time(time: datetime) -> str:
    """As in `created_at`: 2026-11-20T14:03:07.123Z."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The inverse, cut to milliseconds; raises ArchiveDamaged for what is no time."""
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise ArchiveDamaged("A time in the archive is not one.") from error
    return time.replace(microsecond=time.microsecond // 1000 * 1000)

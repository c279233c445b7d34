"""Where a downloaded file lies: its final name, the part of it that has come, and what is known of what it came from."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ATTRIBUTE: Final = "user.pondkeeper.download"
LONGEST_NAME_BYTES: Final = 255
BLOCK_BYTES: Final = 1024 * 1024


class PlaceRefused(Exception):
    """A name that is no file in the folder; the text says why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file came from: its URL, as a hash, the server's validator (ETag, else Last-Modified), size and sha256.

    It is kept in an extended attribute of the file. Why there: it comes and goes with the file in one step, and no list
    of a million files has to be kept. Where the file system has none, nothing is known, and a file is fetched anew.
    """

    url: str
    validator: str
    size_bytes: int = -1
    sha256: str = ""

    def write(self, descriptor: int) -> None:
        """Note it with an open file, where that is possible."""
        data = json.dumps([self.url, self.validator, self.size_bytes, self.sha256]).encode()
        with suppress(OSError):
            os.setxattr(descriptor, ATTRIBUTE, data)

    @staticmethod
    def read(path: Path) -> Origin | None:
        """What is known of a file; None when nothing is. Raises FileNotFoundError."""
        try:
            url, validator, size_bytes, sha256 = json.loads(os.getxattr(path, ATTRIBUTE))
            return Origin(str(url), str(validator), int(size_bytes), str(sha256))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError):
            return None


def hash_of_url(url: str) -> str:
    """What stands for a URL in an attribute: it may hold a token that is nobody's business."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Part:
    """What has come of a file, and where from."""

    origin: Origin
    size_bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether it is the whole file, and only its final name is missing."""
        return self.size_bytes == self.origin.size_bytes


@dataclass(frozen=True, slots=True)
class Place:
    """A file's final path, and beside it the path of what has come so far. Only its job writes there."""

    final: Path
    part: Path

    def complete(self) -> Origin | None:
        """What the file came from, when it is there as it was downloaded. Raises FileNotFoundError."""
        origin = Origin.read(self.final)
        if origin is not None and os.stat(self.final).st_size == origin.size_bytes:
            return origin
        return None

    def begun(self) -> Part | None:
        """What has come so far; None when that is nothing, or not known where from."""
        with suppress(FileNotFoundError):
            if (origin := Origin.read(self.part)) is not None:
                return Part(origin, os.stat(self.part).st_size)
        return None

    def forget_part(self) -> None:
        """Nothing of the file has come, from now on."""
        self.part.unlink(missing_ok=True)


def place_of(folder: Path, file: str | None, job: str) -> Place:
    """The place of a file by its path in the folder. Raises PlaceRefused: it comes from data, and may not leave the folder."""
    if not file:
        raise PlaceRefused("the row names no file, and its URL neither")
    parts = file.split("/")
    for part in parts:
        if part in ("", ".", "..") or not part.isprintable():
            raise PlaceRefused(f"{file[:200]!r} is no path in the folder")
        if _is_part(part):
            raise PlaceRefused(f"{file[:200]!r} has a name that is kept for unfinished files")
    partial = f".{parts[-1]}.{job}.part"
    if any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in (*parts, partial)):
        raise PlaceRefused(f"{file[:100]!r}… has a name that is too long")
    final = folder.joinpath(*parts)
    return Place(final, final.with_name(partial))


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def digest_of(path: Path, *hashes: Any) -> None:
    """Feed a whole file to hashes."""
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            for each in hashes:
                each.update(block)

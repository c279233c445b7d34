"""The manifest beside each snapshot: what it is a copy of, when it was made, and what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import msgspec

MANIFEST_NAME = "manifest.json"
Method = Literal["difference", "compare", "full"]


@dataclass(frozen=True)
class Manifest:
    """`iteration` counts the source's checkpoints; `identity` is its random id (zeros in older storage versions).

    `changed`: ranges of blocks that may differ from version `changed_since`; None when any may. See `changes.py`.
    """

    version: int
    created_at: str
    size_bytes: int
    blocks: int
    blocks_copied: int
    bytes_copied: int
    method: Method
    iteration: int
    storage_version: int
    library_version: str
    identity: str
    block_size_bytes: int = 0
    changed_since: int | None = None
    changed: list[tuple[int, int]] | None = None

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2) + b"\n"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a version folder; None when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / MANIFEST_NAME).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None

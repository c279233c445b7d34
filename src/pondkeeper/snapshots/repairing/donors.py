"""Where torn blocks are taken from: what was copied from the file at the very checkpoint that its headers name.

**Why only that checkpoint.** What a CHECKPOINT writes in place are metadata blocks, in which it leaves alone what the
checkpoint before it uses; everything else it writes into free and new blocks. So as long as its new header is not on
disk, each block of the old checkpoint is as that left it, or torn; and the WAL still has every commit since.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import BlockUse, Headers, read_block_use, read_headers, split_headers
from pondkeeper.engine.preimage import Preimage
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.folders import visible_versions
from pondkeeper.snapshots.repairing.damage import Examined, is_block_whole, read_block


@dataclass
class Donor:
    """A copy of the file at one checkpoint. `close` it when it is not needed any more."""

    name: str
    headers: Headers
    use: BlockUse
    image: Preimage | None = None
    descriptor: int = -1

    @property
    def block_size_bytes(self) -> int:
        return self.headers.active.block_size_bytes

    def block(self, block: int) -> bytes | None:
        """The block as it was; None when this donor has not got it, or not whole."""
        if self.image is not None:
            data = self.image.blocks.get(block, b"")
        else:
            data = read_block(self.descriptor, block, self.block_size_bytes)
        return data if is_block_whole(data, self.block_size_bytes) else None

    def fits(self, examined: Examined) -> bool:
        """Whether the file is at this donor's checkpoint: each header that is not torn is the same, one of them at least."""
        own = split_headers(self.headers.raw)
        sound = [number for number in range(3) if number not in examined.torn_headers]
        return any(number > 0 for number in sound) and all(examined.parts[number] == own[number] for number in sound)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def find_donor(paths: DatabasePaths, examined: Examined) -> Donor | None:
    """The newest snapshot that fits, or the image that the writer kept before a checkpoint without one."""
    for donor in _donors(paths):
        if donor.fits(examined):
            return donor
        donor.close()
    return None


def _donors(paths: DatabasePaths) -> Iterator[Donor]:
    for version in reversed(visible_versions(paths.snapshots)):
        with suppress(OSError, PondkeeperError):  # one that is gone, or damaged itself, gives nothing
            yield _snapshot(paths.snapshot(version), version)
    if (image := Preimage.read(paths.preimage)) is not None:
        yield Donor("what was kept before the checkpoint", image.headers, image.use, image=image)


def _snapshot(path: Path, version: int) -> Donor:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        headers = read_headers(descriptor)
        use = read_block_use(descriptor, headers, block_checksum)
        if use is None:
            raise FileNotFoundError(path)
    except BaseException:  # Why: whatever is wrong with it, nobody else closes it.
        os.close(descriptor)
        raise
    return Donor(f"snapshot {version}", headers, use, descriptor=descriptor)

"""Room on a disk: what fills it to the brim would also stop the writer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pondkeeper.errors import DiskFull

LEAST_ROOM_BYTES = 64 * 1024 * 1024


def insist_on_room(path: Path, wanted_bytes: int = 0) -> None:
    """Raise DiskFull unless so much fits on the disk of `path` and a reserve stays."""
    found = os.statvfs(path)
    room_bytes = found.f_bavail * found.f_frsize
    # Why a sixteenth: on a small disk the reserve must not be most of it.
    reserve_bytes = min(LEAST_ROOM_BYTES, found.f_blocks * found.f_frsize // 16)
    if room_bytes < wanted_bytes + reserve_bytes:
        raise DiskFull(f"There is no room on the keeper's disk for {wanted_bytes:,} more bytes.")


def is_full(error: OSError) -> bool:
    """Whether the system says that a disk, or our share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)

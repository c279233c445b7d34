"""How much lies about on a disk that others write and clear meanwhile."""

from __future__ import annotations

from pathlib import Path


def size_bytes(folder: Path, pattern: str = "**/*") -> int:
    """Bytes of the files of `folder` that match; what goes away while we look counts as gone."""
    total = 0
    for path in folder.glob(pattern):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it has gone meanwhile
            continue
    return total

"""A large file is durable at the end, whatever became of the hints meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pondkeeper.files.flushing import flushing


@pytest.mark.parametrize("has_hint", [True, False])
def test_all_is_flushed_once_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_hint: bool) -> None:
    """Also where the system has no sync_file_range, and when fewer bytes were told than were written."""
    if not has_hint:
        monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", flushed.append)
    descriptor = os.open(tmp_path / "large", os.O_RDWR | os.O_CREAT)
    with flushing(descriptor) as written:
        for size_bytes in (1 << 20, 40 << 20, 90 << 20):
            os.pwrite(descriptor, b"x", size_bytes)
            written(size_bytes)
        assert flushed == []
    assert flushed == [descriptor]
    os.close(descriptor)

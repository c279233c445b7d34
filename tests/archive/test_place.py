"""Where an archive is, and what its process must be able to read for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pondkeeper.archive.place import place_of
from pondkeeper.files.paths import Home
from pondkeeper.settings import ArchiveSettings


def test_a_bucket_takes_its_credentials_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables, and the folder of a token that somebody renews; a folder needs neither."""
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "tokens" / "token"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    bucket = place_of(ArchiveSettings(to="s3://bucket/prefix"), Home(tmp_path))
    assert str(tmp_path / "tokens") in bucket.readable()
    assert bucket.environment["AWS_SECRET_ACCESS_KEY"] == "a-secret"
    assert "a-secret" not in repr(bucket)
    assert bucket.writable() == ()
    folder = place_of(ArchiveSettings(to=str(tmp_path / "archive")), Home(tmp_path))
    assert folder.readable() == ()
    assert folder.environment == {}
    assert folder.writable() == (str(tmp_path / "archive"),)

"""Stores of both kinds, the bucket on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.store.protocol import Store
from pondkeeper.archive.store.s3 import S3Store
from tests.support.s3 import Bucket, s3_server


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as found:
        yield found


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store."""
    if request.param == "folder":
        yield LocalStore(tmp_path / "archive")
        return
    found: Bucket = request.getfixturevalue("bucket")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    opened = S3Store(f"{found.target}/{tmp_path.name}", retry_s=2)
    yield opened
    opened.close()

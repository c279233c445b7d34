"""A database with a home beside it, and nobody who keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pondkeeper.files.paths import DatabasePaths, Home


@pytest.fixture
def database(tmp_path: Path) -> DatabasePaths:
    """`pond.duckdb` in a folder with a `.pondkeeper/`; no keeper was ever here."""
    duckdb = pytest.importorskip("duckdb")
    file = tmp_path / "pond.duckdb"
    duckdb.connect(str(file)).close()
    (tmp_path / ".pondkeeper").mkdir(mode=0o700)
    return Home(tmp_path / ".pondkeeper").database(file)

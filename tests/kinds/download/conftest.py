"""Fixtures of downloads: a site, and what fetches from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.kinds.download.asking import Asker, Certificates, Manners
from pondkeeper.kinds.download.fetching import Fetched, Fetcher
from pondkeeper.kinds.download.place import Place, place_of
from pondkeeper.kinds.download.wanted import Wanted
from tests.kinds.download.site import Site


@dataclass
class Fetching:
    """Fetches files of a site into a folder, as a worker would."""

    site: Site
    folder: Path
    stopping: threading.Event = field(default_factory=threading.Event)

    def place(self, file: str) -> Place:
        return place_of(self.folder, file, "pictures")

    def fetch(
        self, path: str, *, checksum: str | None = None, manners: Manners | None = None, url: str = "", **options: Any
    ) -> Fetched:
        """Fetch one file; raises Trouble."""
        asker = Asker(manners or Manners(timeout_s=20.0), Certificates())
        given = {"existing": "check", "max_file_bytes": 10_000_000} | options
        fetcher = Fetcher(asker, stopping=self.stopping, **given)
        file = path.rpartition("/")[2]
        try:
            return fetcher.fetch(Wanted(url or self.site.url + path, file, checksum, []), self.place(file))
        finally:
            asker.close()

    def keep(self, fetched: Fetched) -> Path:
        """Give the file its final name."""
        if fetched.changed:
            fetched.place.part.replace(fetched.place.final)
        return fetched.place.final


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server that has no page yet."""
    monkeypatch.setenv("no_proxy", "*")  # Why: a proxy of the machine that runs the tests is none of their business
    with Site().running() as site:
        yield site


@pytest.fixture
def fetching(site: Site, tmp_path: Path) -> Fetching:
    """What fetches from it."""
    folder = tmp_path / "files"
    folder.mkdir()
    return Fetching(site, folder)

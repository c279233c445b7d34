"""Which version has the last load of a job, on disk: so that its state can mostly be read without waiting for anybody."""

from __future__ import annotations

import json
from pathlib import Path

from pondkeeper.files.durable import make_folder, write_atomic, write_volatile


class Journal:
    """`loaded.json` in the job's folder: a version that has all of its loads, or that one of them is under way."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "loaded.json"

    def version(self) -> int | None:
        """A version that has every load that was committed; None when that is not known."""
        try:
            noted = json.loads(self._file.read_bytes())
            return None if noted["pending"] is not None else int(noted["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, identity: str) -> None:
        """A load may be committed from now on. Durable: after a power cut nobody else would know."""
        make_folder(self._file.parent)
        write_atomic(self._file, json.dumps({"pending": identity, "version": None}).encode())

    def settle(self, version: int) -> None:
        """All that was committed is in this version."""
        make_folder(self._file.parent)
        write_volatile(self._file, json.dumps({"pending": None, "version": version}).encode())

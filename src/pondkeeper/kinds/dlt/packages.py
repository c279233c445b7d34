"""dlt's load packages on disk: kept as they were before their load, so that a load that was cut short begins anew.

dlt notes for each file of a package whether it was loaded. Here nothing is loaded before everything is, in one transaction;
so what dlt has noted of a package that was not committed is forgotten.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pondkeeper.files.durable import make_folder


class Packages:
    """The normalised packages of one pipeline. `folder` is the pipeline's working folder, `kept` ours."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self._normalized = folder / "load" / "normalized"
        self._loaded = folder / "load" / "loaded"
        self._kept = kept

    def keep(self, load_ids: Iterable[str]) -> None:
        """Keep what these packages are now, before any of them is loaded."""
        make_folder(self._kept, durable=False)
        for load_id in load_ids:
            kept, package = self._kept / load_id, self._normalized / load_id
            if not kept.exists() and package.is_dir():
                unfinished = self._kept / f".{load_id}"
                shutil.rmtree(unfinished, ignore_errors=True)
                shutil.copytree(package, unfinished, copy_function=_link)
                unfinished.rename(kept)

    def restore(self) -> None:
        """Make packages whose load was begun again what they were before it."""
        for kept in self._kept.glob("[!.]*"):
            package = self._normalized / kept.name
            if package.is_dir():
                shutil.rmtree(package)
                shutil.copytree(kept, package, copy_function=_link)
            else:
                shutil.rmtree(kept)

    def forget(self) -> None:
        """Remove what was kept of packages that were loaded, and what dlt keeps of them."""
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.rmtree(self._loaded, ignore_errors=True)
        make_folder(self._loaded, durable=False)


def _link(source: str, target: str) -> None:
    """Rows are linked, as nobody changes them; what dlt writes to is copied."""
    if source.endswith((".json", ".txt")):
        shutil.copy2(source, target)
    else:
        os.link(source, target)

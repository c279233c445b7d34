"""What a keeper does with the files of a machine that has lost its power, without the keeper: one state after the other.

    python -m campaigns.recovering

Reads folders as lines of JSON, {"root", "plain"}, and answers each with a line: what the database holds after the look
for torn parts, the repair, and the writer's own opening of the file; `plain` opens it in DuckDB and does nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb

from campaigns.powerwork import LOOK
from pondkeeper.archive.history import read_archived, versions
from pondkeeper.archive.names import IDENTITY, block_name
from pondkeeper.archive.opening import open_archive
from pondkeeper.engine.opening import WriterConfig
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths, default_home
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.folders import visible_versions
from pondkeeper.snapshots.repairing.mending import repair
from pondkeeper.snapshots.verifying import verify
from pondkeeper.writer.lease import Lease
from pondkeeper.writer.session import Session

NOTHING = "nothing"  # the file is not there, or has no tables yet
MEMORY_BYTES = 1 << 30


def recover(root: Path) -> dict[str, Any]:
    """The steps of a keeper's start, in its order, and what is found after them."""
    paths = DatabasePaths(root / "pond.duckdb", default_home(root))
    make_folder(paths.turn)
    lease = Lease(paths, who="campaign", why="start after a power cut")
    lease.acquire(10.0)
    try:
        temp = root / "temp"
        config = WriterConfig(
            str(paths.file), MEMORY_BYTES, 1, str(temp), MEMORY_BYTES, preimage=paths.preimage, snapshots=paths.snapshots
        )
        existed = paths.file.exists()
        repaired = repair(paths, config)
        session = Session(config)
        try:
            found = _content(session.transaction)
            session.checkpoint()
        finally:
            session.close()
    finally:
        lease.release()
    damaged = verify(paths.file, Cancelling()).damaged
    return {"existed": existed, "found": found, "repaired": repaired, "damaged": damaged, "snapshot": _snapshot(paths), "archive": _archive(paths)}


def _content(transaction: Any) -> Any:
    cursor = transaction()._cursor  # noqa: SLF001  Why: a writer's transaction has no queries; here somebody must look.
    return _looked(cursor)


def _looked(connection: duckdb.DuckDBPyConnection) -> Any:
    try:
        row = connection.execute(LOOK).fetchone()
    except duckdb.CatalogException:
        return NOTHING
    return json.loads(json.dumps(row, default=str))


def _snapshot(paths: DatabasePaths) -> dict[str, Any] | None:
    """The newest snapshot: every block of it is right, and it can be read."""
    visible = visible_versions(paths.snapshots)
    if not visible:
        return None
    file = paths.snapshot(visible[-1])
    with duckdb.connect(str(file), read_only=True) as connection:
        found = _looked(connection)
    return {"version": visible[-1], "damaged": verify(file, Cancelling()).damaged, "found": found}


def _archive(paths: DatabasePaths) -> dict[str, Any]:
    """The versions that the archive shows, and which of their blocks are not there, whole."""
    folder = paths.home / "archive"
    if not (folder / IDENTITY).is_file():
        return {"versions": [], "troubles": []}
    troubles = []
    with open_archive(str(folder), make=False) as archive:
        shown = versions(archive.store, paths.name)
        for version in shown:
            try:
                tree = read_archived(archive.store, archive.sealer, version).tree
                for digest in {tree.digest(block) for block in range(len(tree))}:
                    archive.sealer.opened(archive.store.get(block_name(digest)), digest)
            except PondkeeperError as error:
                troubles.append(f"version {version.version}: {error}")
    return {"versions": [version.version for version in shown], "troubles": troubles}


def plain(root: Path) -> dict[str, Any]:
    """DuckDB alone."""
    with duckdb.connect(str(root / "pond.duckdb")) as connection:
        return {"found": _looked(connection)}


def main() -> None:
    """Answer until nobody asks any more."""
    for line in sys.stdin:
        asked = json.loads(line)
        root = Path(asked["root"])
        try:
            answer = plain(root) if asked.get("plain") else recover(root)
        except (duckdb.Error, PondkeeperError, OSError) as error:
            private = getattr(error, "private", None)
            answer = {"error": f"{type(error).__name__}: {error}", "private": private}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()

"""Restoring a database in place where no keeper serves it: the same plan, in a turn of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pondkeeper.archive.copies import Past, fetch, prove
from pondkeeper.archive.lineage import begin_lineage
from pondkeeper.databases.replacing import KEPT
from pondkeeper.files import swapping
from pondkeeper.files.locks import program_of
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.local.copying import settings_of
from pondkeeper.local.turn import take_turn
from pondkeeper.snapshots.holding import Wanted
from pondkeeper.snapshots.listing import newest_version
from pondkeeper.snapshots.target import disk_errors
from pondkeeper.writer.lease import Lease

Tell = Callable[[str], None]


def restore(paths: DatabasePaths, wanted: Wanted, wait_s: float, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Make the database what it was. Raises PondkeeperError; then nothing has happened."""
    settings = settings_of(Home(paths.home))
    with disk_errors():
        preparing = swapping.Preparing(paths, "restore")
    try:
        made = fetch(Past.of(paths, settings), wanted, preparing.file, tell)
        made |= {"tables": prove(preparing.file, settings, tell)["tables"]}
        preparing.swap.about.update(made)
        _swap(paths, preparing, wait_s, tell)
    finally:
        preparing.discard()  # of a swap that was carried out nothing is left to discard
    return {"published": None, "restored": made}


def undo(paths: DatabasePaths, wait_s: float, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Put back what the last restore, or undo, has replaced. Raises InvalidRequest when nothing is kept."""
    preparing = swapping.prepare_undo(paths, *KEPT)
    try:
        _swap(paths, preparing, wait_s, tell)
    finally:
        preparing.discard()
    return {"published": None, "restored": {"undone": preparing.swap.about["undone"]}}


def _swap(paths: DatabasePaths, preparing: swapping.Preparing, wait_s: float, tell: Tell) -> None:
    lease = Lease(paths, who=program_of(os.getpid()), why=f"{preparing.swap.why} of the database")
    take_turn(lease, paths, wait_s, tell)
    try:
        with disk_errors():
            begin_lineage(paths, newest_version(paths))
            preparing.carry_out()
            swapping.forget(paths, *KEPT, keep=1)
    finally:
        lease.release()

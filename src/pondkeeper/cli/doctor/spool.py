"""The examination of a spool: how much lies in it, and whether any of it is damaged."""

from __future__ import annotations

from collections.abc import Iterator

from pondkeeper.cli.doctor.finding import Finding, ok, problem
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.writer.spool.segments import DAMAGED_SUFFIX, SUFFIX

DAMAGE_REMEDY = "Accepted rows are lost: look into its disk, restore the file from a backup of the home, or remove it when that is settled."


def examine(subject: str, paths: DatabasePaths) -> Iterator[Finding]:
    """Reads names and sizes only: a running keeper appends to the last segment."""
    if not paths.spool.is_dir():
        return
    files = list(paths.spool.iterdir())
    damaged = sorted(path.name for path in files if path.suffix == DAMAGED_SUFFIX)
    if damaged:
        yield problem(subject, f"a part of the spool is damaged: {', '.join(damaged)}", DAMAGE_REMEDY)
    size_bytes = sum(path.stat().st_size for path in files if path.suffix == SUFFIX)
    if size_bytes:
        yield ok(subject, f"its spool holds {show_bytes(size_bytes)} of accepted ingests")

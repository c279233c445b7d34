"""The examination of a database file block by block, in a process of its own that may load what checksums fast."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.cli.doctor.finding import Finding, ok, problem, warning
from pondkeeper.cli.quantities import show_bytes

if TYPE_CHECKING:
    from pondkeeper.files.paths import DatabasePaths

WHOLE_BELOW_BYTES: Final = 1024 * 1024 * 1024
SHOWN_BLOCKS: Final = 5
RESTORE: Final = (
    "Put its newest version in its place: `pondkeeper backup restore --at now`, or an older one (`pondkeeper backup list`); "
    "`--undo` takes it back."
)


def examine(subject: str, paths: DatabasePaths, *, whole: bool) -> Finding:
    """The checksums of all blocks; of a large file only when `whole` is asked for."""
    size_bytes = paths.file.stat().st_size
    if size_bytes > WHOLE_BELOW_BYTES and not whole:
        return ok(subject, f"its blocks were not read, because it has {show_bytes(size_bytes)}: --blocks reads them")
    return _judged(subject, _read(paths))


def _read(paths: DatabasePaths) -> dict[str, Any]:
    """What the doctor's child says. Trap: a process that has a database open in DuckDB may not do this; it has none."""
    command = [sys.executable, "-m", "pondkeeper.snapshots.verifying", str(paths.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"code": "internal", "message": f"its blocks could not be read: {done.stderr.strip()[-200:]}"}


def _judged(subject: str, said: dict[str, Any]) -> Finding:
    if "code" in said:
        level = problem if said["code"] == "database_unreadable" else warning
        return level(subject, said["message"], RESTORE if level is problem else said.get("remedy", ""))
    damaged: list[int] = said["damaged"]
    if not damaged:
        return ok(subject, f"every one of its {said['blocks_used']:,} blocks in use has the right checksum")
    if said["changed"]:
        return warning(subject, "its blocks changed while they were read", "Run `check` again when it is quieter.")
    named = ", ".join(map(str, damaged[:SHOWN_BLOCKS])) + (" …" if len(damaged) > SHOWN_BLOCKS else "")
    return problem(subject, f"{len(damaged):,} of its {said['blocks_used']:,} blocks are damaged: {named}", RESTORE)

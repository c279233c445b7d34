"""The examination of the machine: versions, limits, what the kernel can do, the clock."""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from pondkeeper import __version__
from pondkeeper.cli.doctor.finding import Finding, ok, problem, warning
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.settings import Settings, resolve, this_machine
from pondkeeper.workers.walls import WALLS, try_walls

TESTED: Final = ("1.5", "2.0")
LEAST_OPEN_FILES: Final = 1024
RELEASED: Final = 1_763_000_000  # November 2025: a clock that is before it is wrong


def examine(settings: Settings, place: Path | None) -> Iterator[Finding]:
    """Everything that can be said of the machine; `place` is a folder where a temporary file may be made."""
    yield from _versions()
    yield from _limits(settings)
    yield from _kernel(place)
    yield from _fence(settings.fence.mode)
    yield _clock()


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield ok("versions", f"Pondkeeper {__version__}, Python {python}, Linux {os.uname().release}")
    for package in ("duckdb", "pyarrow"):
        try:
            yield _engine(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield problem("versions", f"{package} is not installed", f"pip install {package}")


def _engine(package: str, version: str) -> Finding:
    if package == "duckdb" and not version.startswith(tuple(f"{line}." for line in TESTED)):
        remedy = f"Lines {' and '.join(TESTED)} are tested: pip install 'duckdb~={TESTED[-1]}.0'"
        return warning("versions", f"duckdb {version} is not a line that was tested", remedy)
    return ok("versions", f"{package} {version}")


def _limits(settings: Settings) -> Iterator[Finding]:
    machine = this_machine()
    yield ok("limits", f"{machine.cpus} CPUs and {show_bytes(machine.ram_bytes)} of memory are ours to use")
    resolved = resolve(settings, machine.cpus, machine.ram_bytes)
    asked = resolved.readers.count * resolved.readers.memory_limit_bytes + resolved.writer.memory_limit_bytes
    text = f"readers and writer may take {show_bytes(asked)} together"
    if asked > machine.ram_bytes:
        remedy = "Lower readers.count, readers.memory_limit_bytes or writer.memory_limit_bytes: the kernel kills who asks for more."
        yield warning("limits", f"{text}, more than there is", remedy)
    else:
        yield ok("limits", text)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files < LEAST_OPEN_FILES:
        yield warning(
            "limits", f"only {files} open files are allowed", f"ulimit -n {LEAST_OPEN_FILES} before the start"
        )
    else:
        yield ok("limits", f"{files} open files are allowed")


def _kernel(place: Path | None) -> Iterator[Finding]:
    yield _feature(
        "pidfd", hasattr(os, "pidfd_open") and _works(_try_pidfd), "children are then watched by their number"
    )
    yield _feature(
        "file leases", place is None or _works(lambda: _try_lease(place)), "old snapshots are then found by their locks"
    )


def _feature(name: str, works: bool, otherwise: str) -> Finding:
    if works:
        return ok("kernel", f"it has {name}")
    return warning("kernel", f"it has no {name}: {otherwise}", "A newer kernel, or a container that allows it, has it.")


def _works(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _try_pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _try_lease(place: Path) -> None:
    """A lease on a file of our own, in the folder that will need it: it depends on the file system."""
    with tempfile.NamedTemporaryFile(dir=place, prefix=".check.", suffix=".tmp") as file:
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _fence(mode: str) -> Iterator[Finding]:
    """Each wall around the children that run SQL: whether it stands, tried now."""
    if mode == "off":
        remedy = "Remove fence.mode from the settings file, or set PONDKEEPER_FENCE_MODE=auto."
        yield warning("fence", "it is off by setting: only DuckDB's own locks are around SQL", remedy)
        return
    level = problem if mode == "strict" else warning
    for name, why in try_walls().items():
        wall = WALLS[name]
        if why:
            yield level("fence", f"off: {wall.what}; {why}", wall.remedy)
        else:
            yield ok("fence", f"on: {wall.what}")
    yield ok("fence", "on: no new privileges, limits of memory, an empty environment, first in line when memory runs out")


def _clock() -> Finding:
    now = time.time()
    if now < RELEASED:
        remedy = "Set the clock: keys expire and snapshots are dated by it."
        return problem("clock", f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}, which is in the past", remedy)
    return ok("clock", time.strftime("it says %Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))

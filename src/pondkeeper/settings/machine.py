"""What this process may use of the machine: CPUs and memory, with the limits of a container or unit counted in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """CPUs and memory that are ours to use."""

    cpus: int
    ram_bytes: int


def this_machine(cgroup: Path = CGROUP, own_cgroup: Path = OWN_CGROUP) -> Machine:
    """The machine as this process sees it: the least of hardware, CPU affinity and cgroup limits."""
    folders = _cgroup_folders(cgroup, own_cgroup)
    ram_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = len(os.sched_getaffinity(0))
    return Machine(
        cpus=min([cpus, *(limit for folder in folders if (limit := _cpu_limit(folder)))]),
        ram_bytes=min([ram_bytes, *(limit for folder in folders if (limit := _memory_limit_bytes(folder)))]),
    )


def _cgroup_folders(cgroup: Path, own_cgroup: Path) -> list[Path]:
    """Our own cgroup and those above it: a systemd unit's limit stands in the unit's, a container's at the top."""
    line = next((line for line in _text(own_cgroup).splitlines() if line.startswith("0::/")), "0::/")
    own = cgroup / line.removeprefix("0::/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(cgroup))]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cpu_limit(folder: Path) -> int | None:
    """CPUs of `cpu.max` ("200000 100000"), rounded up; None without a limit."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return -(-int(quota) // int(period))


def _memory_limit_bytes(folder: Path) -> int | None:
    """Bytes of `memory.max` (cgroup 2) or `memory.limit_in_bytes` (cgroup 1); None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _text(folder / name)
        if limit.isdecimal() and int(limit):
            return int(limit)
    return None

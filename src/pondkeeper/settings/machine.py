"""What this process may use of the machine: CPUs and memory, with the limits of a container counted in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """CPUs and memory that are ours to use."""

    cpus: int
    ram_bytes: int


def this_machine(cgroup: Path = CGROUP) -> Machine:
    """The machine as this process sees it: the least of hardware, CPU affinity and cgroup limits."""
    ram_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = len(os.sched_getaffinity(0))
    return Machine(cpus=max(1, min(cpus, _cgroup_cpus(cgroup) or cpus)),
                   ram_bytes=min(ram_bytes, _cgroup_memory_bytes(cgroup) or ram_bytes))  # fmt: skip


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cgroup_cpus(cgroup: Path) -> int | None:
    """CPUs of `cpu.max` ("200000 100000"), rounded up; None without a limit."""
    quota, _, period = _first_line(cgroup / "cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return max(1, -(-int(quota) // int(period)))


def _cgroup_memory_bytes(cgroup: Path) -> int | None:
    """Bytes of `memory.max` (cgroup 2) or `memory.limit_in_bytes` (cgroup 1); None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _first_line(cgroup / name)
        if limit.isdigit() and int(limit):
            return int(limit)
    return None

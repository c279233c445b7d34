"""What the kernel says about a process and its descendants."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessStat:
    pid: int
    parent: int
    state: str
    cpu_s: float


def process_stat(pid: int) -> ProcessStat | None:
    """/proc/<pid>/stat, or None when the process is gone. `cpu_s` counts user and system time of all its threads."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(pid, int(fields[1]), fields[0], (int(fields[11]) + int(fields[12])) * TICK_S)


def tree(root: int) -> dict[int, ProcessStat]:
    """The process and all its living descendants."""
    everybody = (process_stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    children: dict[int, list[ProcessStat]] = {}
    found: dict[int, ProcessStat] = {}
    for stat in everybody:
        if stat is not None:
            children.setdefault(stat.parent, []).append(stat)
            if stat.pid == root:
                found[root] = stat
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found[child.pid] = child
            waiting.append(child.pid)
    return found


def cpu_used_s(earlier: dict[int, ProcessStat], later: dict[int, ProcessStat]) -> float:
    """CPU time that the tree used between two looks; what a process used that died in between is not in it."""
    return sum(stat.cpu_s - (earlier[pid].cpu_s if pid in earlier else 0.0) for pid, stat in later.items())


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0

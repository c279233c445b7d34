"""Processes as the kernel sees them: CPU, memory, what is mapped; and runaway queries to keep them busy."""

from __future__ import annotations

import os
import time
from pathlib import Path

RUNAWAYS = {
    "3-way cross join": (
        "SELECT sum(a.range * b.range + c.range) FROM range(3000000) a, range(3000000) b, range(3000000) c"
    ),
    "endless recursive CTE": (
        "WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n % 1000000 + 1 FROM endless) SELECT count(*) FROM endless"
    ),
    # Why a table: a call on constants is folded away while the statement is bound, which is another path.
    "60,000-character levenshtein": (
        "SELECT levenshtein(repeat(chr(97 + (n % 20)::INTEGER), 60000), repeat('zy', 30000)) FROM range(3, 4) AS r(n)"
    ),
    "200 M-element list lambda": (
        "SELECT len(list_transform(range(n), lambda x: x * 2 + 1)) FROM range(200000000, 200000001) AS r(n)"
    ),
}
RUNAWAY = RUNAWAYS["3-way cross join"]
DEAF = RUNAWAYS["60,000-character levenshtein"]
ENDLESS_ROWS = "SELECT i, repeat('x', 500) AS filler FROM range(1000000000) AS r(i)"

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (words := _stat(int(entry.name))) and words[0] != "Z":
            parents[int(entry.name)] = int(words[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_s(pids: list[int]) -> float:
    """CPU time that these processes have used so far, in seconds; the dead count nothing."""
    ticks = [int(words[11]) + int(words[12]) for pid in pids if (words := _stat(pid))]
    return sum(ticks) / _TICKS_PER_S


def busy_cores(root: int, window_s: float = 0.3) -> float:
    """How many cores the process and its descendants use right now."""
    before, began = {pid: cpu_s([pid]) for pid in tree(root)}, time.monotonic()
    time.sleep(window_s)
    used = sum(max(0.0, cpu_s([pid]) - old) for pid, old in before.items())
    return used / (time.monotonic() - began)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mapped_files(pid: int) -> set[str]:
    """Every file that the process has mapped: its libraries above all."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {words[5] for line in lines if len(words := line.split(maxsplit=5)) == 6 and words[5].startswith("/")}


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    words = _stat(pid)
    return bool(words) and words[0] != "Z"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

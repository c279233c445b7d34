"""Who of our processes goes first when the processors are busy: by nice values, and by those of Linux' automatic groups.

Both are set, since only one of them counts: where a desktop or a plain service has automatic groups (each child is a
session, and so a group of its own), nice values hold within a group only. Giving way needs no privilege. Taking that back
does: for nice values CAP_SYS_NICE or RLIMIT_NICE, for groups CAP_SYS_ADMIN, without which the kernel takes ten changes a
second from the whole machine. `go_first` says whether it could, `can_be_taken_back` whether it will.
"""

from __future__ import annotations

import os
import resource
from functools import cache
from pathlib import Path
from typing import Final

STEPS: Final = 10
"""A tenth of the share of who does not give way."""
_LOWEST: Final = 19
_CAP_SYS_ADMIN, _CAP_SYS_NICE = 21, 23
_AUTOMATIC_GROUPS: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_OWN_GROUP: Final = Path("/proc/self/autogroup")


@cache
def can_be_taken_back() -> bool:
    """Whether a process of ours that gave way can go first again, so that giving way costs nothing that lasts."""
    capabilities = next((line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")), "")
    has = int(capabilities.partition(":")[2] or "0", 16)
    may_renice = has >> _CAP_SYS_NICE & 1 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - os.getpriority(os.PRIO_PROCESS, 0)
    has_groups = _AUTOMATIC_GROUPS.exists() and _AUTOMATIC_GROUPS.read_text().strip() != "0"
    return bool(may_renice) and (not has_groups or bool(has >> _CAP_SYS_ADMIN & 1))


def give_way(pid: int) -> None:
    """Let every process that does not give way go before all threads of this one."""
    _renice(pid, STEPS)


def go_first(pid: int) -> bool:
    """Take that back; whether the kernel let us."""
    return _renice(pid, 0)


def _renice(pid: int, steps: int) -> bool:
    """So many steps behind ourselves."""
    nice = min(_LOWEST, os.getpriority(os.PRIO_PROCESS, 0) + steps)
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return True  # it has ended
    is_done = True
    for thread in threads:
        try:
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
        except ProcessLookupError:
            continue
        except PermissionError:
            is_done = False
    return _renice_group(pid, steps) and is_done


def _renice_group(pid: int, steps: int) -> bool:
    try:
        nice = min(_LOWEST, _group_nice(_OWN_GROUP.read_text()) + steps)
        with open(f"/proc/{pid}/autogroup", "w") as file:
            file.write(str(nice))
    except (FileNotFoundError, ProcessLookupError):
        return True  # Why: a kernel without such groups has nothing to take back.
    except OSError:
        return False
    return True


def _group_nice(group: str) -> int:
    """The nice value of a group as the kernel tells of it, such as "/autogroup-75 nice 5".

    Trap: it is the group's own: a keeper under `nice -n 5` is in a group of 0, and so are its children. And the kernel tells
    nothing of who is in the root group, such as a service of an init that never called setsid.
    """
    return int(group.rsplit(maxsplit=1)[-1]) if group.strip() else 0

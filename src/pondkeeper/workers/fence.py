"""What a child process puts around itself before it does anything else."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pondkeeper.workers import landlock, seccomp

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)

RLIMITS = {
    "data": resource.RLIMIT_DATA,
    "core": resource.RLIMIT_CORE,
    "files": resource.RLIMIT_NOFILE,
}


def _prctl(option: int, argument: int | bytes) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants: children forked by the template are then the keeper's own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_adoption(intermediate: int, keeper: int) -> bool:
    """Wait until the intermediate parent is gone; whether the keeper is the parent now.

    Trap: PDEATHSIG set before that would fire when the intermediate parent exits.
    """
    while os.getppid() == intermediate:
        time.sleep(0.0002)
    return os.getppid() == keeper


def set_name(name: str) -> None:
    """Name the process for ps and top (at most 15 bytes are kept)."""
    _prctl(_PR_SET_NAME, name.encode())


@dataclass(frozen=True)
class Fence:
    """What a child may open beside the libraries: these files, and these folders with all that is below them.

    `files_in`: folders in which and below which files may be made, changed and removed, but neither folders nor symbolic
    links. `may_touch`: whether it may change modes, owners and times of files, which no folder can confine. `may_connect`:
    whether it may ask other machines: only what runs no SQL may.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    files_in: tuple[str, ...] = ()
    may_touch: bool = False
    may_connect: bool = False

    def with_own(self, folder: Path) -> Fence:
        """The same, with a folder of the child's own."""
        return replace(self, write=(*self.write, str(folder)))


def put_up(limits: Mapping[str, int], oom_score_adj: int) -> None:
    """No new privileges, no core files, the given rlimits (bytes or counts), an empty environment."""
    forgo_privileges()
    os.environ.clear()
    for name, value in {"core": 0, **limits}.items():
        resource.setrlimit(RLIMITS[name], (value, value))
    with open("/proc/self/oom_score_adj", "w") as file:  # raising one's own score is always allowed
        file.write(str(oom_score_adj))


def forgo_privileges() -> None:
    """No program that this process starts gets more rights than it; the walls of the kernel ask for that first."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def close(fence: Fence, libraries: tuple[str, ...], walls: Collection[str]) -> None:
    """Put up the kernel's walls of these names (see `walls.py`): last of all, since nothing gets out afterwards."""
    if "files" in walls:
        read = (*libraries, *fence.read, *(_NETWORK_FILES if fence.may_connect else ()))
        landlock.restrict(read, (*_DEVICES, *fence.write), fence.files_in, may_connect=fence.may_connect)
    if "calls" in walls:
        seccomp.filter_calls(may_touch=fence.may_touch, may_connect=fence.may_connect)


_DEVICES = ("/dev/null",)
# What the resolver and TLS read: names, addresses, and whom to trust.
_NETWORK_FILES = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
    *("/run/systemd/resolve", "/run/resolvconf", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates"),
)

"""Which walls this kernel puts around a child: found out by trying each, not by asking for a version number."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pondkeeper.workers import fence, landlock, seccomp

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Wall:
    """A wall that the kernel puts up: what it keeps a child from, and what a machine without it needs."""

    what: str
    remedy: str


WALLS: Final = {
    "files": Wall(
        "a child opens no file outside its folders, and runs no program (Landlock)",
        "Linux 5.13 or later with `landlock` in the kernel's `lsm=` list (/sys/kernel/security/lsm shows it).",
    ),
    "calls": Wall(
        "a child makes no socket, no process, no mount (seccomp)",
        "Linux with CONFIG_SECCOMP_FILTER on x86-64 or 64-bit ARM, and a container that lets processes filter themselves.",
    ),
}
_SYSTEM: Final = (
    *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom"),
    # Trap: DuckDB looks for the limits of its control group, and 1.5 aborts when it may not.
    *("/proc/self/cgroup", "/sys/fs/cgroup"),
)
_NOT_HELD: Final = "it was put up, and did not hold"


def try_walls() -> dict[str, str]:
    """Why each wall cannot be put up here, by its name; an empty text for one that stands. Forks."""
    return {"files": _tried(_try_files), "calls": _tried(_try_calls)}


def tell_missing(mode: str, missing: dict[str, str]) -> None:
    """Say in the log, plainly, what does not protect us."""
    remedy = "`pondkeeper check` shows each wall; fence.mode = strict refuses to start without them."
    if mode == "off":
        _log.warning(
            "the fence is off: nothing but DuckDB's own locks is between a query and this machine", remedy=remedy
        )
    elif missing:
        _log.warning("this kernel lacks walls of the fence", missing=missing, remedy=remedy)


def libraries() -> tuple[str, ...]:
    """What every child may read: the system's libraries, Python's, and the packages that are loaded already."""
    paths = sysconfig.get_paths()
    wanted = {*_SYSTEM, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))}
    known = tuple(os.path.realpath(path) + "/" for path in wanted)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and "." not in name and not os.path.realpath(file).startswith(known):
            wanted.add(str(Path(file).parent if Path(file).stem == "__init__" else file))
    return tuple(sorted(wanted))


def _tried(attempt: Callable[[], str]) -> str:
    """What a forked process says of the attempt."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _say_and_end(attempt, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        said = answer.read()
    _, status = os.waitpid(pid, 0)
    return said.decode() if status == 0 else f"the attempt ended with status {status}"


def _say_and_end(attempt: Callable[[], str], write_end: int) -> None:
    try:
        fence.forgo_privileges()
        said = attempt()
    except OSError as error:
        said = error.strerror or repr(error)
    except BaseException as error:  # noqa: BLE001  Why: a forked process must not return into its parent's code.
        said = repr(error)
    os.write(write_end, said.encode()[:4096])
    os._exit(0)


def _try_files() -> str:
    if landlock.version() == 0:
        return "the kernel has no Landlock, or it is not among its `lsm=`"
    landlock.restrict((), ())
    try:
        os.listdir("/")
    except PermissionError:
        return ""
    return _NOT_HELD


def _try_calls() -> str:
    if not seccomp.is_known_here():
        return f"no filter is written for {os.uname().machine}"
    seccomp.filter_calls(may_touch=False)
    try:
        socket.socket().close()
    except PermissionError:
        return ""
    return _NOT_HELD

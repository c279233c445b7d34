"""Landlock: a process gives up every file but those that it names, and TCP, until it ends. A binding by ctypes.

Trap: Landlock judges the opening of files, not `stat`, `chmod` or Unix sockets; `seccomp.py` refuses what it can of those.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from enum import IntFlag
from typing import Final

_CREATE_RULESET: Final = 444  # the numbers are the same on every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Right(IntFlag):
    """What can be done to files, as the kernel numbers it."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = Right.READ_FILE | Right.READ_DIR
WRITE: Final = (
    READ
    | (Right.WRITE_FILE | Right.TRUNCATE | Right.REMOVE_DIR | Right.REMOVE_FILE)
    | (Right.MAKE_DIR | Right.MAKE_REG | Right.MAKE_SYM | Right.REFER)
)
FILES: Final = READ | Right.WRITE_FILE | Right.TRUNCATE | Right.REMOVE_FILE | Right.MAKE_REG | Right.REFER
_OF_A_FILE: Final = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
_RIGHTS_OF_FIRST: Final = 1 << 13
_SINCE: Final = {2: Right.REFER, 3: Right.TRUNCATE, 5: Right.IOCTL_DEV}
_TCP_SINCE: Final = 4
_SCOPES_SINCE: Final = 6
_TCP: Final = 0b11  # bind, connect
_TCP_BIND: Final = 0b01
_SCOPES: Final = 0b11  # abstract Unix sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of Landlock that the kernel offers; 0 when it offers none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def has_tcp(offered: int) -> bool:
    """Whether that version refuses TCP too."""
    return offered >= _TCP_SINCE


def restrict(
    read: Iterable[str], write: Iterable[str], files_in: Iterable[str] = (), *, may_connect: bool = False
) -> None:
    """Give up all files but those at or below these paths; what does not exist, or cannot be reached, is left out. Raises OSError.

    Below `files_in` files may be made, changed, moved and removed, but no folders, no symbolic links, no sockets and no
    pipes. Nothing may be executed from anywhere. Takes effect for this thread and the threads that it starts.
    """
    offered = version()
    judged = handled(offered)
    tcp = _TCP_BIND if may_connect else _TCP
    attributes = _Ruleset(judged, tcp if has_tcp(offered) else 0, _SCOPES if offered >= _SCOPES_SINCE else 0)
    size_bytes = 24 if offered >= _SCOPES_SINCE else 16 if has_tcp(offered) else 8
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size_bytes), 0)
    try:
        for path in read:
            _allow(ruleset, path, READ & judged)
        for path in write:
            _allow(ruleset, path, WRITE & judged)
        for path in files_in:
            _allow(ruleset, path, FILES & judged)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def handled(offered: int) -> int:
    """The rights that this version of Landlock judges."""
    return (_RIGHTS_OF_FIRST - 1) | sum(right for since, right in _SINCE.items() if offered >= since)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # Why: what cannot be reached now could not be opened later either.
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_A_FILE
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_PathBeneath(rights, place)), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock (system call {number}): {os.strerror(error)}")
    return result

"""A filter of system calls (seccomp): what Landlock does not judge, above all the network. Written as BPF by hand.

A list of what is refused, and ENOSYS for every call that is newer than the list: a list of what is allowed would break
with each release of glibc, DuckDB or the kernel, in the middle of somebody's night.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from pondkeeper.workers import syscalls

_SET_MODE_FILTER: Final = 1
_SPEC_ALLOW: Final = (
    1 << 2
)  # Why: older kernels slow the whole process down otherwise, against a danger that is not ours.
_CLONE_THREAD: Final = 0x10000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER: Final = 0x25
_JUMP_AT_LEAST: Final = 0x35
_JUMP_BITS: Final = 0x45
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_REFUSE: Final = 0x00050000 | errno.EPERM
_UNKNOWN: Final = 0x00050000 | errno.ENOSYS
_PLACE_OF_PID: Final = 0x6F776E21  # no number of a process is that large
_OWN_PID: Final = struct.pack("=I", _PLACE_OF_PID)
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16

# By `platform.machine()`: the column in `syscalls`, the kernel's number of the architecture, that of `seccomp` itself.
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_known_here() -> bool:
    """Whether we know the numbers of the calls on this machine."""
    return platform.machine() in _ARCHITECTURES


def filter_calls(*, may_touch: bool, may_connect: bool = False) -> None:
    """Refuse the calls from now on, for ever (EPERM). `may_touch`: modes, owners and times of files may be changed;
    `may_connect`: sockets may be made and connected, never listened on.

    Needs "no new privileges". Takes effect for this thread and the threads that it starts. Raises OSError.
    """
    column, architecture, own_number = _ARCHITECTURES[platform.machine()]
    code = assembled(column, architecture, may_touch=may_touch, may_connect=may_connect)
    code = code.replace(_OWN_PID, struct.pack("=I", os.getpid()))
    program = _Program(len(code) // 8, code)
    if _libc.syscall(own_number, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(program)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")


def prepare() -> None:
    """Assemble the filters now, so that forked processes need not."""
    column, architecture, _ = _ARCHITECTURES[platform.machine()]
    for may_touch in (False, True):
        assembled(column, architecture, may_touch=may_touch)


@cache
def assembled(column: int, architecture: int, *, may_touch: bool, may_connect: bool = False) -> bytes:
    """The program, with `_OWN_PID` in the places of the process's number."""
    return b"".join(_program(column, architecture, _refused(column, may_touch, may_connect)))


def _program(column: int, architecture: int, refused: set[int]) -> Iterator[bytes]:
    yield _step(_LOAD, _AT_ARCHITECTURE)
    yield _step(_JUMP_EQUAL, architecture, if_true=1)
    yield _step(_RETURN, _KILL_PROCESS)
    yield _step(_LOAD, _AT_NUMBER)
    yield _step(_JUMP_GREATER, syscalls.NEWEST_JUDGED, if_false=1)
    yield _step(_RETURN, _UNKNOWN)
    for first, last in _ranges(refused):
        yield _step(_JUMP_AT_LEAST, first, if_false=2)
        yield _step(_JUMP_GREATER, last, if_true=1)
        yield _step(_RETURN, _REFUSE)
    yield from _judged_by_arguments({name: both[column] for name, both in syscalls.JUDGED_BY_ARGUMENTS.items()})
    yield _step(_RETURN, _ALLOW)


def _judged_by_arguments(numbers: dict[str, int | None]) -> Iterator[bytes]:
    """No socket of this machine's own; threads, but no processes; signals to itself; limits to be read, not to be set."""
    # Why ENOSYS: its flags are behind a pointer, which no filter can follow; glibc then takes `clone`.
    yield from _when(numbers["clone3"], [_step(_RETURN, _UNKNOWN)])
    # Why: the control socket of the keeper trusts whoever is of its own user; Landlock does not judge connecting to it.
    is_unix = [_step(_LOAD, _AT_ARGUMENTS), _step(_JUMP_EQUAL, socket.AF_UNIX, if_false=1)]
    yield from _when(numbers["socket"], [*is_unix, _step(_RETURN, _REFUSE), _step(_RETURN, _ALLOW)])
    bits = [_step(_LOAD, _AT_ARGUMENTS), _step(_JUMP_BITS, _CLONE_THREAD, if_false=1)]
    yield from _when(numbers["clone"], [*bits, _step(_RETURN, _ALLOW), _step(_RETURN, _REFUSE)])
    itself = [_step(_LOAD, _AT_ARGUMENTS), _step(_JUMP_EQUAL, _PLACE_OF_PID, if_false=1)]
    for name in ("kill", "tgkill"):
        yield from _when(numbers[name], [*itself, _step(_RETURN, _ALLOW), _step(_RETURN, _REFUSE)])
    new_limit = _AT_ARGUMENTS + 2 * 8
    is_null = [_step(_LOAD, new_limit), _step(_JUMP_EQUAL, 0, if_false=3)]
    is_null += [_step(_LOAD, new_limit + 4), _step(_JUMP_EQUAL, 0, if_false=1)]
    yield from _when(numbers["prlimit64"], [*is_null, _step(_RETURN, _ALLOW), _step(_RETURN, _REFUSE)])


def _when(number: int | None, steps: list[bytes]) -> Iterator[bytes]:
    """The steps for the call of this number; they end with a return."""
    yield _step(_JUMP_EQUAL, 0xFFFFFFFF if number is None else number, if_false=len(steps))
    yield from steps


def _refused(column: int, may_touch: bool, may_connect: bool) -> set[int]:
    network = {name: both for name, both in syscalls.NETWORK.items() if not (may_connect and name in syscalls.CONNECTING)}
    groups = [network, syscalls.PROCESSES, syscalls.IDENTITY, syscalls.KERNEL, syscalls.SHARED]
    if not may_touch:
        groups.append(syscalls.TOUCHING)
    numbers = (both[column] for group in groups for both in group.values())
    return {number for number in numbers if number is not None}


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Neighbours taken together."""
    first = last = None
    for number in sorted(numbers):
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def _step(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
